/* What people and programs read of an audit.
 *
 * JSON (cotrain audit --json), version 1 of its schema; members are added, never changed. Numbers
 * above 2^53 are strings; digests and keys are 64 lower-case hex digits.
 *
 *   schema            "cotrain-audit-1"
 *   ok                true iff `failures` is empty: all that was asked for holds
 *   name, run_id, origin, log_key, license, data_license
 *   tree              {size, root}: the signed checkpoint that everything below is about
 *   entries           entries that hold by the run's rules, from the first on
 *   signatures        verified in this audit (entries' and commits')
 *   rounds            closed
 *   contributions     commits that were looked at
 *   replayed_rounds   aggregations that were recomputed
 *   recomputed        contributions that were recomputed, `units` the units (node, epoch) that they
 *                     belong to, units_total the units that could have been drawn
 *   mismatches        recomputed and different: each accuses an author (or the coordinator)
 *   unavailable       not there, though the run must keep it, so not verified: accuses nobody
 *   model_sha256      after the last closed round; model_recomputed tells whether it was replayed
 *
 *   failures[]        {entry | null, file, reason, kind: broken | mismatch | unavailable},
 *                     the first 1000; failure_count is their whole number
 *
 *   draw              null, or {kind: some | share | all, share, shares}; seed (decimal, as --seed
 *                     takes it)
 *
 *   chance[]          {fraction, probability}: if that fraction of the units had been cheated in,
 *                     the probability that this draw contains one. units_total · fraction rounded
 *                     up, K of U; n drawn: 1 − C(U − K, n) / C(U, n)
 *
 *   cost              {steps, payload_bytes, replay_rounds} of recomputing
 *   retention         null where the run keeps all updates, or what it lets expire {rounds,
 *                     expired_round: updates of rounds up to it may be gone; updates, bytes,
 *                     first_round, last_round: of those that are, 0 if none is} and what can no
 *                     longer be recomputed for that {aggregations: rounds whose model follows from
 *                     nothing that is there; units, contributions: work without its base, in no
 *                     draw and not in units_total; trusted_round: the last round whose model is its
 *                     snapshot on the log's word, 0 if none; all that follows can be recomputed}.
 *                     What has expired is in no failures[]
 *   continued         {entries, rounds}: verified by an earlier audit and not again
 *   witnesses         null where neither the run nor the auditor asks for any, or {quorum, size,
 *                     root, names[], not_witnessed}: the newest tree that the quorum has cosigned,
 *                     by whom, and how many of the tree's entries are not in it
 *   since             null, or {file, size, root, holds}: the checkpoint of --since, and whether
 *                     the log leads on from it
 *   evidence          null, or the path of the file that proves two histories (evidence.h)
 *   narrow            null, or {first, last, node, round} with null for what was not narrowed
 *
 *   nodes[]           {node, key, name, region: what the volunteer shows (volunteer.h), else null,
 *                     commits, merged, missing, refused, recomputed, mismatches,
 *                     admitted_round, last_round, first_loss, last_loss, payload_bytes, credit:
 *                     {tokens, settled, provisional, void, rounds, checks}} (credit.h)
 *
 *   tokens, rounds_planned, spare_blobs, private[], private_count
 *
 * Nothing in it but paths and what volunteers show depends on the time or the machine: the same
 * audit of the same tree gives the same bytes. */
#ifndef NODE_AUDIT_REPORT_H
#define NODE_AUDIT_REPORT_H

#include "audit.h"

#include <stdio.h>

#define CT_AUDIT_SCHEMA "cotrain-audit-1"

void ct_audit_text(FILE *out, const struct ct_audit_report *report);
/* Two lines about what recomputing will take. */
void ct_audit_cost_text(FILE *out, const struct ct_audit_report *report);
/* CT_ERR_MEMORY, CT_ERR_IO */
CT_MUST_CHECK enum ct_err ct_audit_json(FILE *out, const struct ct_audit_report *report);
/* One self-contained page. Everything that others wrote is escaped. */
CT_MUST_CHECK enum ct_err ct_audit_html(const char *path, const struct ct_audit_report *report);

/* Rows go into the file while the audit is under way; sqlite.c has the tables. The watch lives as
 * long as the export. */
struct ct_audit_sqlite;
CT_MUST_CHECK enum ct_err ct_audit_sqlite_open(const char *path, struct ct_audit_sqlite **out,
                                               struct ct_audit_watch *out_watch);
/* Adds what is known at the end, and closes; `report` NULL gives up and leaves no file. */
CT_MUST_CHECK enum ct_err ct_audit_sqlite_close(struct ct_audit_sqlite *sqlite,
                                                const struct ct_audit_report *report);

/* cotrain audit merge: joins JSON reports of shares of one draw. Returns the exit status. */
int ct_audit_merge(int argc, char **argv);

/* What cheating on a fraction of the work would have met with. */
#define CT_AUDIT_FRACTIONS 4u
extern const double ct_audit_fractions[CT_AUDIT_FRACTIONS];
double ct_audit_chance_of(const struct ct_audit_report *report, double fraction);

#endif
