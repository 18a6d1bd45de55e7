"""A job that sends grades: `python background_job.py 7 8 9`, one argument a student."""

import logging
import os
import sys

from logd_client import Client, Outcome
from logd_client.logging_handler import LogdHandler

log = logging.getLogger("school.grades")


def main(students: list[str]) -> int:
    # Closed at the end: what is accepted is stored, whether the daemon runs at the moment or not.
    with Client(os.environ.get("LOGD_SOCKET", "/run/logd/logd.sock")) as client:
        log.addHandler(LogdHandler(client))
        for student in students:
            client.emit("grades_sent", user=student, props={"job": "grades"})
            if student.startswith("0"):
                log.warning("no mail address", extra={"logd_user": student})
        # Waits until it is on disk: what must not be done twice is known to be recorded.
        outcome = client.emit_durable("grades_finished", props={"students": len(students)})
    return 0 if outcome is Outcome.STORED else 75  # refused, or not known in time


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
