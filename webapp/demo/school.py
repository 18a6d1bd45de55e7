"""The people of the demo school, all of them invented."""

from __future__ import annotations

from dataclasses import dataclass

from webapp.classroom.model.accounts import Role


@dataclass(frozen=True)
class Person:
    """An account of the demo. Its id is fixed, because events of the history refer to it."""

    id: int
    login: str
    name: str
    role: Role


@dataclass(frozen=True)
class DemoAccount:
    """A login that may be published: it opens only the demo school."""

    username: str
    password: str
    role: Role


DEMO_ACCOUNTS = (
    DemoAccount("teacher", "demo-teacher", Role.TEACHER),
    DemoAccount("auditor", "demo-auditor", Role.AUDITOR),
    DemoAccount("student", "demo-student", Role.STUDENT),
)

_STUDENTS = (
    "Noor Haddad",
    "Emil Sørensen",
    "Yara Okafor",
    "Jonas Weber",
    "Amélie Laurent",
    "Tomasz Kowalski",
    "Leila Karimi",
    "Mateo Fernández",
    "Ingrid Nilsen",
    "Kofi Mensah",
    "Sofia Rossi",
    "Daan de Vries",
    "Aisha Rahman",
    "Lukas Novák",
    "Maya Cohen",
    "Oskar Lindqvist",
    "Priya Nair",
    "Finn O'Connor",
    "Elif Aydin",
    "Hugo Almeida",
    "Zofia Wójcik",
    "Samuel Adeyemi",
    "Clara Hoffmann",
    "Ravi Patel",
    "Nina Petrova",
    "Pablo Ortega",
    "Hana Suzuki",
    "Isaac Thompson",
    "Freya MacLeod",
    "Ömer Demir",
)

TEACHER = Person(1, "teacher", "Ada Brandt", Role.TEACHER)
COLLEAGUE = Person(2, "m.okoye", "Marcus Okoye", Role.TEACHER)
AUDITOR = Person(3, "auditor", "Ruth Keller", Role.AUDITOR)
STUDENTS = tuple(
    Person(4 + at, "student" if at == 0 else f"student{at + 1}", name, Role.STUDENT)
    for at, name in enumerate(_STUDENTS)
)
PEOPLE = (TEACHER, COLLEAGUE, AUDITOR, *STUDENTS)
