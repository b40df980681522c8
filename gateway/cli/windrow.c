#include "gateway/cli/command.h"

#include <signal.h>

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    int status = commands_main(argc, argv);
    /* A reader that went away (`| head`) is no failure; a full disk is. */
    fflush(stdout);
    return status;
}
