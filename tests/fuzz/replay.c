/* Runs a fuzz target over files, and over the files of folders, without libFuzzer. */
#include "fuzz.h"

#include <dirent.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static bool replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    struct stat info;
    if (file == NULL || fstat(fileno(file), &info) != 0) {
        perror(path);
        return false;
    }
    size_t size = (size_t)info.st_size;
    uint8_t *data = malloc(size + 1);
    bool ok = data != NULL && fread(data, 1, size, file) == size;
    printf("%s\n", path);
    fflush(stdout); /* names the culprit should the target crash */
    if (ok)
        LLVMFuzzerTestOneInput(data, size);
    free(data);
    fclose(file);
    return ok;
}

static bool replay_folder(const char *path, DIR *folder)
{
    bool ok = true;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char file[PATH_MAX];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(file, sizeof file, "%s/%s", path, entry->d_name);
        ok = replay_file(file) && ok;
    }
    return ok;
}

int main(int argc, char **argv)
{
    bool ok = true;
    for (int i = 1; i < argc; i++) {
        DIR *folder = opendir(argv[i]);
        ok = (folder != NULL ? replay_folder(argv[i], folder) : replay_file(argv[i])) && ok;
        if (folder != NULL)
            closedir(folder);
    }
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
