/* Guest: a FIFO of the host's (its name is the argument), both ends opened in here; an open that waits holds nobody else up. */
#include "guest.h"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

static const char *g_name;
static volatile int g_ticks;

static void *opens_late(void *unused)
{
    for (int i = 0; i < 10; i++, g_ticks++)
        usleep(20000);
    int fd = open(g_name, O_WRONLY);
    EXPECT(fd >= 0 && write(fd, "x", 1) == 1);
    close(fd);
    return unused;
}
CHECK(other_end_is_a_threads)
{
    pthread_t thread;
    char byte = 0;
    pthread_create(&thread, NULL, opens_late, NULL);
    int fd = open(g_name, O_RDONLY);
    EXPECT(fd >= 0 && g_ticks == 10 && read(fd, &byte, 1) == 1 && byte == 'x');
    pthread_join(thread, NULL);
    close(fd);
}
int main(int count, char **arguments)
{
    g_name = arguments[count - 1];
    run_checks();
    return 0;
}
