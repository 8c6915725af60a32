/* What lies in a coordinator's run directory, so that coordinator, audit and documentation agree.
 * Everything is public and verified by an audit but the files marked private, which no audit needs:
 * it lists them. */
#ifndef COTRAIN_RUN_DIR_H
#define COTRAIN_RUN_DIR_H

#define CT_RUN_LEDGER   "ledger"            /* ledger.h */
#define CT_RUN_BLOBS    "blobs"             /* blob.h */
#define CT_RUN_PROFILES "profiles"          /* DIGEST, records of volunteer.h; deleted when asked */
#define CT_RUN_IDENTITY "keys/identity.pem" /* private: TLS and statements */
#define CT_RUN_LOG_KEY  "keys/log.pem"      /* private: checkpoints */
#define CT_RUN_CACHE    "cache"             /* private: the folded state, never evidence */
#define CT_RUN_INCOMING "incoming"          /* private: uploads that are not complete */
#define CT_RUN_PORTS                                                                               \
    "ports"                /* private: "host HOST\nwork PORT\nhttp PORT\n", kept over restarts     \
                            */
#define CT_RUN_LOCK "lock" /* private: held by the one writer */
#define CT_RUN_RESTORED                                                                            \
    "restored" /* private: made from a copy, and too few nodes were heard since */
#define CT_RUN_EVIDENCE "evidence"        /* private: refused statements */
#define CT_RUN_LOG      "coordinator.log" /* private: diagnostics */

#endif
