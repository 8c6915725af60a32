#include <cotrain/safetensors.h>

#include <cotrain/assert.h>
#include <cotrain/buf.h>

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensors are written as they lie");

enum {
    HEADER_BYTES_MAX = 16 << 20,
    LENGTH_BYTES = 8,
    PIECE_VALUES = 1 << 15, /* read and converted at once: they stay in L2 */
};

struct ct_safetensors {
    int fd;
    char *path;
    uint64_t values_begin, values_bytes;
    struct ct_safetensors_entry *entries; /* in byte order of names */
    size_t count;
};

/* Bytes of a value; 0 for a type that the format does not have. */
static uint64_t bytes_of_type(const char *type) {
    static const struct {
        const char *name;
        uint64_t bytes;
    } types[] = {
        {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1},
        {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},
        {"U32", 4},  {"F32", 4}, {"F64", 8}, {"I64", 8},     {"U64", 8},
    };
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (strcmp(types[i].name, type) == 0) {
            return types[i].bytes;
        }
    }
    return 0;
}

static enum ct_err read_at(const struct ct_safetensors *file, uint64_t offset, void *out,
                           size_t bytes) {
    uint8_t *to = out;
    while (bytes > 0) {
        const ssize_t count = pread(file->fd, to, bytes, (off_t)offset);
        if (count == 0) {
            return ct_fail(CT_ERR_FORMAT, "%s: is cut short", file->path);
        }
        if (count < 0) {
            if (errno == EINTR) {
                continue;
            }
            return ct_fail(CT_ERR_IO, "cannot read %s: %s", file->path, strerror(errno));
        }
        to += count;
        offset += (uint64_t)count;
        bytes -= (size_t)count;
    }
    return CT_OK;
}

/* The dimensions and their product, which is held to what the file can have. */
static enum ct_err read_shape(const struct ct_safetensors *file, const json_t *shape,
                              struct ct_safetensors_entry *entry) {
    const size_t count = json_array_size(shape);
    entry->values = 1;
    bool good = json_is_array(shape) && count <= CT_SAFETENSORS_DIMENSIONS_MAX;
    for (size_t i = 0; good && i < count; i++) {
        const json_t *size = json_array_get(shape, i);
        const json_int_t value = json_integer_value(size);
        good = json_is_integer(size) && value >= 0 &&
               (value == 0 || entry->values <= file->values_bytes / (uint64_t)value);
        entry->dimensions[i] = good ? (uint64_t)value : 0;
        entry->values *= entry->dimensions[i];
    }
    entry->dimension_count = (uint32_t)count;
    return good ? CT_OK
                : ct_fail(CT_ERR_FORMAT, "%s: tensor %.100s has an impossible shape", file->path,
                          entry->name);
}

static enum ct_err read_entry(const struct ct_safetensors *file, const json_t *json,
                              struct ct_safetensors_entry *entry) {
    const char *type = json_string_value(json_object_get(json, "dtype"));
    const uint64_t value_bytes = type != NULL ? bytes_of_type(type) : 0;
    if (json_object_size(json) != 3 || value_bytes == 0) {
        return ct_fail(CT_ERR_FORMAT, "%s: tensor %.100s has no known dtype", file->path,
                       entry->name);
    }
    snprintf(entry->type, sizeof entry->type, "%s", type);
    CT_TRY(read_shape(file, json_object_get(json, "shape"), entry));
    const json_t *offsets = json_object_get(json, "data_offsets");
    const json_t *from = json_array_get(offsets, 0), *to = json_array_get(offsets, 1);
    const json_int_t begin = json_integer_value(from), end = json_integer_value(to);
    if (json_array_size(offsets) != 2 || !json_is_integer(from) || !json_is_integer(to) ||
        begin < 0 || end < begin || (uint64_t)end > file->values_bytes ||
        (uint64_t)(end - begin) % value_bytes != 0 ||
        (uint64_t)(end - begin) / value_bytes != entry->values) {
        return ct_fail(CT_ERR_FORMAT, "%s: tensor %.100s has impossible data_offsets", file->path,
                       entry->name);
    }
    entry->begin = file->values_begin + (uint64_t)begin;
    entry->bytes = (uint64_t)(end - begin);
    return CT_OK;
}

static enum ct_err check_metadata(const struct ct_safetensors *file, json_t *metadata) {
    const char *key;
    json_t *value;
    bool strings = json_is_object(metadata);
    json_object_foreach(metadata, key, value) {
        strings = strings && json_is_string(value);
    }
    return strings ? CT_OK
                   : ct_fail(CT_ERR_FORMAT, "%s: __metadata__ is not all strings", file->path);
}

static int compare_names(const void *a, const void *b) {
    const struct ct_safetensors_entry *x = a, *y = b;
    return strcmp(x->name, y->name);
}

static int compare_places(const void *a, const void *b) {
    const struct ct_safetensors_entry *x = *(const struct ct_safetensors_entry *const *)a;
    const struct ct_safetensors_entry *y = *(const struct ct_safetensors_entry *const *)b;
    /* An empty tensor stands before the one that begins at its place. */
    const uint64_t end_x = x->begin + x->bytes, end_y = y->begin + y->bytes;
    return x->begin != y->begin ? (x->begin > y->begin) - (x->begin < y->begin)
                                : (end_x > end_y) - (end_x < end_y);
}

/* Tensors lie back to back from the first byte of values to the file's last. */
static enum ct_err check_places(const struct ct_safetensors *file) {
    const struct ct_safetensors_entry **sorted = calloc(file->count + 1, sizeof(void *));
    if (sorted == NULL) {
        return ct_fail(CT_ERR_MEMORY, "%s: no memory for %zu tensors", file->path, file->count);
    }
    for (size_t i = 0; i < file->count; i++) {
        sorted[i] = &file->entries[i];
    }
    qsort(sorted, file->count, sizeof(void *), compare_places);
    uint64_t end = file->values_begin;
    bool whole = true;
    for (size_t i = 0; i < file->count; i++) {
        whole = whole && sorted[i]->begin == end;
        end = sorted[i]->begin + sorted[i]->bytes;
    }
    free(sorted);
    return whole && end == file->values_begin + file->values_bytes
               ? CT_OK
               : ct_fail(CT_ERR_FORMAT, "%s: tensors overlap, leave holes or end early",
                         file->path);
}

static enum ct_err take_entries(struct ct_safetensors *file, json_t *header) {
    const char *name;
    json_t *value;
    file->entries = calloc(json_object_size(header) + 1, sizeof *file->entries);
    if (file->entries == NULL) {
        return ct_fail(CT_ERR_MEMORY, "%s: no memory for its tensors", file->path);
    }
    json_object_foreach(header, name, value) {
        if (strcmp(name, "__metadata__") == 0) {
            CT_TRY(check_metadata(file, value));
            continue;
        }
        struct ct_safetensors_entry *entry = &file->entries[file->count];
        entry->name = strdup(name);
        if (entry->name == NULL) {
            return ct_fail(CT_ERR_MEMORY, "%s: no memory for its tensors", file->path);
        }
        file->count++;
        CT_TRY(read_entry(file, value, entry));
    }
    qsort(file->entries, file->count, sizeof *file->entries, compare_names);
    return check_places(file);
}

static enum ct_err parse_header(struct ct_safetensors *file, struct ct_bytes text) {
    json_error_t error;
    json_t *header =
        json_loadb((const char *)text.data, text.length, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(header)) {
        json_decref(header);
        return ct_fail(CT_ERR_FORMAT, "%s: its header is not a JSON object", file->path);
    }
    const enum ct_err err = take_entries(file, header);
    json_decref(header);
    return err;
}

static enum ct_err read_header(struct ct_safetensors *file) {
    struct stat status;
    if (fstat(file->fd, &status) != 0 || !S_ISREG(status.st_mode)) {
        return ct_fail(CT_ERR_IO, "%s is not a file that can be read", file->path);
    }
    const uint64_t size = (uint64_t)status.st_size;
    uint64_t length = 0;
    if (size < LENGTH_BYTES) {
        return ct_fail(CT_ERR_FORMAT, "%s: is cut short", file->path);
    }
    CT_TRY(read_at(file, 0, &length, sizeof length));
    if (length == 0 || length > HEADER_BYTES_MAX || length > size - LENGTH_BYTES) {
        return ct_fail(CT_ERR_FORMAT, "%s: has no safetensors header", file->path);
    }
    file->values_begin = LENGTH_BYTES + length;
    file->values_bytes = size - file->values_begin;
    uint8_t *text = malloc(length);
    if (text == NULL) {
        return ct_fail(CT_ERR_MEMORY, "%s: no memory for its header", file->path);
    }
    enum ct_err err = read_at(file, LENGTH_BYTES, text, length);
    if (err == CT_OK && text[0] != '{') {
        err = ct_fail(CT_ERR_FORMAT, "%s: has no safetensors header", file->path);
    }
    if (err == CT_OK) {
        err = parse_header(file, (struct ct_bytes){text, length});
    }
    free(text);
    return err;
}

enum ct_err ct_safetensors_open(const char *path, struct ct_safetensors **out) {
    struct ct_safetensors *file = calloc(1, sizeof *file);
    if (file == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory to read %s", path);
    }
    enum ct_err err = CT_OK;
    file->path = strdup(path);
    file->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (file->path == NULL) {
        err = ct_fail(CT_ERR_MEMORY, "no memory to read %s", path);
    } else if (file->fd < 0) {
        err = ct_fail(errno == ENOENT ? CT_ERR_NOT_FOUND : CT_ERR_IO, "cannot open %s: %s", path,
                      strerror(errno));
    } else {
        err = read_header(file);
    }
    if (err != CT_OK) {
        ct_safetensors_close(file);
        return err;
    }
    *out = file;
    return CT_OK;
}

void ct_safetensors_close(struct ct_safetensors *file) {
    if (file == NULL) {
        return;
    }
    if (file->fd >= 0) {
        close(file->fd);
    }
    for (size_t i = 0; i < file->count; i++) {
        free(file->entries[i].name);
    }
    free(file->entries);
    free(file->path);
    free(file);
}

size_t ct_safetensors_count(const struct ct_safetensors *file) {
    return file->count;
}

const struct ct_safetensors_entry *ct_safetensors_at(const struct ct_safetensors *file,
                                                     size_t index) {
    CT_ASSERT(index < file->count);
    return &file->entries[index];
}

static int compare_key(const void *key, const void *element) {
    const struct ct_safetensors_entry *entry = element;
    return strcmp(key, entry->name);
}

const struct ct_safetensors_entry *ct_safetensors_find(const struct ct_safetensors *file,
                                                       const char *name) {
    return bsearch(name, file->entries, file->count, sizeof *file->entries, compare_key);
}

/* The bits of binary32 that a half's bits stand for; its subnormals are normal there. */
static uint32_t widen_half(uint16_t half) {
    const uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    const uint32_t exponent = half >> 10 & 31u, fraction = half & 0x3ffu;
    if (exponent == 31) {
        return sign | 0x7f800000u | fraction << 13;
    }
    if (exponent == 0) {
        const float value = (float)fraction * 0x1p-24f;
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        return sign | bits;
    }
    return sign | (exponent + 112) << 23 | fraction << 13;
}

/* Subnormals to signed zeros; false if a value is not finite. */
static bool settle_values(float *values, size_t count) {
    uint32_t largest = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, values + i, sizeof bits);
        const uint32_t exponent = bits & 0x7f800000u;
        largest = exponent > largest ? exponent : largest;
        bits = exponent == 0 ? bits & 0x80000000u : bits;
        memcpy(values + i, &bits, sizeof bits);
    }
    return largest != 0x7f800000u;
}

/* Values of 16 bits, `half` or bf16, from the byte `begin` on. */
static enum ct_err read_narrow(const struct ct_safetensors *file, uint64_t begin, size_t count,
                               bool half, float *out) {
    uint16_t piece[PIECE_VALUES];
    CT_TRY(read_at(file, begin, piece, count * sizeof *piece));
    for (size_t i = 0; i < count; i++) {
        const uint32_t bits = half ? widen_half(piece[i]) : (uint32_t)piece[i] << 16;
        memcpy(out + i, &bits, sizeof bits);
    }
    return CT_OK;
}

enum ct_err ct_safetensors_read(const struct ct_safetensors *file,
                                const struct ct_safetensors_entry *entry, float *out) {
    const bool narrow = strcmp(entry->type, "BF16") == 0 || strcmp(entry->type, "F16") == 0;
    if (!narrow && strcmp(entry->type, "F32") != 0) {
        return ct_fail(CT_ERR_UNSUPPORTED, "%s: tensor %.100s is %s; F32, BF16 and F16 are read",
                       file->path, entry->name, entry->type);
    }
    const uint64_t value_bytes = narrow ? sizeof(uint16_t) : sizeof(float);
    bool finite = true;
    for (uint64_t first = 0; first < entry->values; first += PIECE_VALUES) {
        const uint64_t left = entry->values - first;
        const size_t count = left < PIECE_VALUES ? (size_t)left : PIECE_VALUES;
        const uint64_t begin = entry->begin + first * value_bytes;
        CT_TRY(narrow ? read_narrow(file, begin, count, entry->type[0] == 'F', out + first)
                      : read_at(file, begin, out + first, count * sizeof *out));
        finite = settle_values(out + first, count) && finite;
    }
    return finite ? CT_OK
                  : ct_fail(CT_ERR_NUMERIC, "%s: tensor %.100s holds a value that is not finite",
                            file->path, entry->name);
}

static enum ct_err append_metadata(struct ct_buf *file, const struct ct_safetensors_note *notes,
                                   size_t count) {
    CT_TRY(ct_buf_printf(file, "{\"__metadata__\":{\"format\":\"pt\""));
    for (size_t i = 0; i < count; i++) {
        CT_ASSERT(strpbrk(notes[i].key, "\"\\") == NULL);
        CT_ASSERT(strpbrk(notes[i].value, "\"\\") == NULL);
        CT_TRY(ct_buf_printf(file, ",\"%s\":\"%s\"", notes[i].key, notes[i].value));
    }
    return ct_buf_printf(file, "}");
}

static enum ct_err append_header(struct ct_buf *file, const struct ct_layout *layout,
                                 const struct ct_safetensors_note *notes, size_t note_count) {
    static const uint8_t room[LENGTH_BYTES] = {0};
    CT_TRY(ct_buf_append(file, room, sizeof room));
    CT_TRY(append_metadata(file, notes, note_count));
    for (uint32_t i = 0; i < layout->tensor_count; i++) {
        const struct ct_tensor *tensor = &layout->tensors[i];
        const size_t begin = tensor->offset * sizeof(float);
        const size_t end = begin + (size_t)tensor->rows * tensor->columns * sizeof(float);
        char shape[32];
        if (tensor->kind == CT_TENSOR_VECTOR) {
            snprintf(shape, sizeof shape, "%u", tensor->columns);
        } else {
            snprintf(shape, sizeof shape, "%u,%u", tensor->rows, tensor->columns);
        }
        CT_TRY(ct_buf_printf(
            file, ",\"%s\":{\"dtype\":\"F32\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
            tensor->name, shape, begin, end));
    }
    CT_TRY(ct_buf_printf(file, "}"));
    while (file->length % 8 != 0) {
        CT_TRY(ct_buf_printf(file, " "));
    }
    const uint64_t length = file->length - LENGTH_BYTES;
    memcpy(file->data, &length, sizeof length);
    return CT_OK;
}

enum ct_err ct_safetensors_save(const char *path, const struct ct_layout *layout,
                                const float *values, const struct ct_safetensors_note *notes,
                                size_t note_count) {
    const size_t bytes = layout->parameters * sizeof(float);
    struct ct_buf file;
    ct_buf_init(&file, bytes + HEADER_BYTES_MAX);
    enum ct_err err = append_header(&file, layout, notes, note_count);
    if (err == CT_OK) {
        err = ct_buf_append(&file, values, bytes);
    }
    if (err == CT_OK) {
        err = ct_file_replace(path, ct_buf_bytes(&file));
    }
    ct_buf_deinit(&file);
    return err;
}
