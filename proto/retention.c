#include <cotrain/retention.h>

uint32_t ct_retention_expired(const struct ct_manifest *manifest, uint32_t closed) {
    /* A stranger's log may count rounds as it likes. */
    closed = closed < manifest->rounds ? closed : manifest->rounds;
    const uint32_t kept = manifest->retention_rounds + manifest->epoch_rounds - 1;
    if (manifest->retention_rounds == 0 || closed <= kept) {
        return 0;
    }
    return (closed - kept) / manifest->snapshot_rounds * manifest->snapshot_rounds;
}
