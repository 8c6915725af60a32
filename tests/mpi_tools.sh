# Sourced by what runs sites: mpirun as tests need it, on loopback, more ranks than cores, also as root.
# MPI's own files go where everything else goes, since TMPDIR may be long and sockets' names not.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_btl=self,vader OMPI_MCA_pml=ob1
export OMPI_MCA_oob_tcp_if_include=lo OMPI_MCA_btl_tcp_if_include=lo
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_plm_rsh_agent=
# Sanitizers find what MPI never frees.
export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0"

# need_mpi BUILD_DIR: ends the test as skipped where there is no MPI.
need_mpi() {
    if ! command -v mpirun >/dev/null 2>&1; then
        echo "skipped: no mpirun here (openmpi-bin has it)"
        exit 77
    fi
    if [ ! -x "$1/cotrain-mpi" ]; then
        echo "skipped: $1/cotrain-mpi is not built (libopenmpi-dev was missing when cmake ran)"
        exit 77
    fi
}
