"""The Classroom: a Flask site for courses, whose activity goes to logd and comes back as charts.

`views` are the pages, `present` how data reads on them, `model` what the site knows, `store` its
own database; each uses those after it.

`templates/`, `static/` and the courses in `content/` lie beside them.
"""
