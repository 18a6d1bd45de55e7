"""A demo school for the Classroom: its people, sixty days of their history, and how to play it.

Each module uses those before it: `school` (who), `visits` (what somebody clicks), `history` (all of
it, from a fixed seed), `seed` (into the site's database, and through logd's socket).
"""
