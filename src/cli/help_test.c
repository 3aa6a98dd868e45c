/* Every row of the commands' tables can be shown. */
#include "cli/help.h"

#include "base/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void check_command(struct cli *cli, const struct command *command)
{
    char *text = NULL;
    size_t bytes = 0;
    assert_non_null(command->operands);
    assert_non_null(command->summary);
    if (strncmp(command->example, command->name, strlen(command->name)) != 0)
        fail_msg("the example of \"%s\" is \"%s\"", command->name, command->example);
    assert_true((command->run != NULL) != (command->work != NULL));
    FILE *out = open_memstream(&text, &bytes);
    assert_non_null(out);
    help_command(cli, command, out);
    assert_int_equal(fclose(out), 0);
    assert_non_null(strstr(text, command->summary));
    free(text);
}

static void test_every_command_has_its_help(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct cli cli = {.arena = arena};
    for (size_t i = 0; i < command_group_count; i++)
        for (size_t j = 0; j < command_groups[i]->count; j++)
            check_command(&cli, &command_groups[i]->items[j]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_command_has_its_help),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
