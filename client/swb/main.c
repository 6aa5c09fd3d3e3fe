#include "base/alloc.h"
#include "client/swb/swb.h"

#include <signal.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    struct args args;
    int status = EXIT_USAGE;

    signal(SIGPIPE, SIG_IGN);
    if (args_parse(&args, argc, argv)) {
        if (args_has(&args, OPT_HELP)) {
            help_print(args.command);
            status = EXIT_OK;
        } else {
            status = args.command->run(&args);
        }
        if (fflush(stdout) != 0 && status == EXIT_OK)
            status = EXIT_ERROR;
    }
    mem_free(args.words);
    mem_free(args.topics);
    return status;
}
