/* The commands of cotraind, one file each (cotraind_NAME.c). */
#ifndef COORDINATOR_COTRAIND_H
#define COORDINATOR_COTRAIND_H

int ct_cmd_init(int argc, char **argv);
int ct_cmd_mirror(int argc, char **argv);
int ct_cmd_restore(int argc, char **argv);
int ct_cmd_serve(int argc, char **argv);
int ct_cmd_status(int argc, char **argv);
int ct_cmd_ticket(int argc, char **argv);
int ct_cmd_witness(int argc, char **argv);

#endif
