"""`logd conformance`: tests a client in any language through the life of a producer.

| module | |
|---|---|
| `runner.py` | runs the selected cases, each in a scene of its own |
| `cases.py` | the list of cases |
| `byte_cases.py` | test vectors, refused events, text, sizes |
| `outbox_cases.py` | the file, its ring to the last byte, refusals counted in it |
| `sending_cases.py` | datagrams: one for each event, watching, a full queue, no outbox |
| `life_cases.py` | forks, lost outboxes and locks, durable events, the end |
| `loss_cases.py` | outboxes that are lost, and the events in them |
| `kill_cases.py` | kills of either side in every order, with a real daemon |
| `scene.py` | one case's directory, driver and daemon double |
| `driver.py` | the client's driver, a process that answers one line to each command |
| `daemon_double.py` | a daemon's side of the protocol that acts only when a case calls it |
| `temporary_daemon.py` | an instance of logd in memory, and its daemon |
| `driver_protocol.py`, `verdicts.py` | commands and answers; what passed and failed (pure) |

The daemon's side is logd's own code: its reader of outboxes, its decoder, its socket. The client's
side is never imported.
"""
