"""The Classroom: a Flask site for courses that logs its activity to logd and shows it in charts.

`views` are the pages, `present` formats data for them, `model` holds accounts, courses, work and
reports, `store` is the site's own database. Each uses those after it.
"""
