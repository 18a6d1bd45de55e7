"""A demo school for the Classroom: its people and sixty days of their history.

Each module uses those before it: `school` (the people), `visits` (the events of one visit),
`history` (all visits, from a fixed seed), `seed` (stores the school in the site's database and logs
its history through logd's socket).
"""
