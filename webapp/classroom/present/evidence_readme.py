"""The README of an evidence sheet's download: how to check it without this site and its log."""

from __future__ import annotations

README = """\
An evidence sheet, and how to check it
======================================

sheet.json      the sheet: one person's events in the order in which they were stored, what may be
                missing from that time, and the state of the log
statement.txt   what the sheet has: the question, how many events, and hashes over the events and
                over what may be missing
head.txt        the head of the log: the root of its hash tree over all batches of events
proofs/N.proof  that event N is in the log under this head, one file for each event

The forms are open standards: Merkle trees of RFC 9162 (section 2.1), checkpoints, signed notes and
inclusion proofs of C2SP (c2sp.org/tlog-checkpoint, c2sp.org/signed-note, c2sp.org/tlog-proof), with
SHA-256 and Ed25519. Nothing of this site or of its log is needed to check them. For example, Go's
packages golang.org/x/mod/sumdb/note and .../tlog, or aics-tlog of PyPI, do; so does
`logd prove --check proofs/N.proof --public-key KEY` for one event, on any machine.


What is needed besides: the public key
--------------------------------------

Get it from the administrator of the log on another way (`logd checkpoint --public-key`), and not
from sheet.json: a sheet cannot vouch for its own key. Without a signature in head.txt there is no
key, and the sheet proves something only to those who know this head from elsewhere, such as from a
journal or a witness. The head that the journal has is the line `anchor batch=... root=...`.


To check it, one step after the other
-------------------------------------

1. head.txt is a signed note of three lines (name of the log, number of batches, root). Its
   signature is by the public key, and its first line is the name of the key.
2. statement.txt is a signed note by the same key. Its lines `trail` and `head` have the name, the
   number of batches and the root of head.txt.
3. For each event in sheet.json there is proofs/N.proof, of four parts with an empty line between:
     a. `logd/event-proof@v1`, `event` with the event's data in base64, `index` with its place in
        its batch, and hashes: the inclusion proof (RFC 9162, 2.1.3) in the tree of the batch's
        events. The leaf is SHA-256(0x00 || data).
     b. the entry of the batch: a title; a line with its number, the time of storing, its first
        event and how many events it has; the root of the tree of its events; and a last line.
        (A title `logd/chained-batch@v1` is of a batch from before the tree: there the hashes are
        SHA-256 of all of the batch's events, and the root is SHA-256 over all these.)
     c. `c2sp.org/tlog-proof@v1`, `index` with the batch's place, and hashes: the inclusion proof
        of the entry (with its last newline) in the tree of the head.
     d. the head, the same as head.txt.
   The first 16 bytes of the data are random. The rest is a MessagePack array: number, producer,
   sequence, time (ns), type, user, and the properties, again MessagePack. They are what sheet.json
   has of the event. (Not a number and infinities are texts in sheet.json.)
4. An event without a proof says why in `unproven`: then `data` has its data, and `leaf` its hash.
   The log cannot prove it; a reason that begins with CHANGED means that the log was tampered with.
5. The numbers of the events (`id`) ascend. The Merkle tree over their leaves in that order has the
   number of leaves and the root of the statement's line `events`.
6. The Merkle tree over the lines of `caveats` in sheet.json, each a leaf of its UTF-8 bytes, has
   the number and root of the statement's line `caveats`.
7. Each event is of the statement's `user` and within its times `since` and `until` (`-`: open), and
   its number is not above `up_to`.

The texts for people (`person`, `item`, `what`, `completeness`, `made_by`, and the rest of `trail`)
are written by the site from this, and covered by no hash.


What this shows
---------------

- That each event is in the log as it was stored, unchanged to the last bit, with the time that its
  program claimed and the time at which it was stored, under the head of head.txt.
- That nothing was left out of the sheet, added, moved or changed since the log signed the
  statement, which covers every event of the question and every known caveat: a sheet with one event
  less does not have the number and the root of its statement.
- With an earlier head of the log that you hold, and a proof of growth (`logd prove --growth`), that
  nothing was changed or removed from the log since that head.


What this does not show
-----------------------

- That the statement names every event of this person. It is the word of the log at the time of
  making, and covers what the log had. Whoever held the log's signing key could make another. The
  proofs name the batches that the events are in, and how many events these have; whose the other
  events are cannot be seen from here. Who has the log itself can count: `logd export`,
  `logd verify`.
- That no event was lost before it was stored. That is what `caveats` is about: numbers that are
  missing from the log, by producer and time. A missing number has no name: whose event it was
  cannot be known, so that a caveat counts for everyone.
- Whether the clock of a program was right. `time_in_doubt` marks a time that does not go with the
  time of storing, such as that of events that were brought in later.
- What happened and was never logged.

This file has a person's data, not encrypted. An erasure in the log does not reach it.
"""
