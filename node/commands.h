/* One line per command of `cotrain`, in the order of their names; each lives in node/cmd_NAME.c.
 * argv[0] is the command's name; the result is the exit status. */
#ifndef NODE_COMMANDS_H
#define NODE_COMMANDS_H

struct ct_site;

int ct_cmd_audit(int argc, char **argv);
int ct_cmd_bench(int argc, char **argv);
int ct_cmd_data(int argc, char **argv);
int ct_cmd_eval(int argc, char **argv);
int ct_cmd_generate(int argc, char **argv);
int ct_cmd_join(int argc, char **argv);
int ct_cmd_key(int argc, char **argv);
int ct_cmd_receipt(int argc, char **argv);
int ct_cmd_evidence(int argc, char **argv);
int ct_cmd_status(int argc, char **argv);
int ct_cmd_train(int argc, char **argv);

/* The same by all ranks of a site: `cotrain-mpi`. Rank 0 alone prints and writes. */
int ct_site_join(struct ct_site *site, int argc, char **argv);
int ct_site_train(struct ct_site *site, int argc, char **argv);

#endif
