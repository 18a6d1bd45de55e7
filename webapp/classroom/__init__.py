"""The Classroom: a Flask site for courses, whose activity goes to logd and comes back as charts.

A row may use its own modules and those of the rows below it:

    served          wsgi, gunicorn_conf, factory
    pages           auth, courses, quizzes, teacher, auditor
    for all pages   access, extensions, errors, security, paging
    how it looks    present, charts, markdown
    what is known   work, catalogue, analytics
    what is kept    accounts, content, throttle
    database        db, schema, instance
    by themselves   config, scoring

`templates/`, `static/` and the courses in `content/` lie beside them.
"""
