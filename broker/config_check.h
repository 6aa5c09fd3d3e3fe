/* Checks that concern several keys of a configuration at once. */
#ifndef BROKER_CONFIG_CHECK_H
#define BROKER_CONFIG_CHECK_H

struct config;

/* Calls on_problem() with one sentence for everything that doesn't go together. Keys with a refused value of
 * their own are left out. The sentence is valid during the call. */
void config_check(const struct config *config, void (*on_problem)(void *data, const char *problem),
                  void *data);

#endif
