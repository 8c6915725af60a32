/* The commands of cotraind, one file each (cmd_NAME.c). */
#ifndef COORDINATOR_COMMANDS_H
#define COORDINATOR_COMMANDS_H

int ct_cmd_init(int argc, char **argv);
int ct_cmd_serve(int argc, char **argv);
int ct_cmd_status(int argc, char **argv);
int ct_cmd_ticket(int argc, char **argv);

#endif
