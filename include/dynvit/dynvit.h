/* dynvit for C, and for every language that can call C: a model file in, classes out.
 * The library is libdynvit_c.so. Calls with one classifier may come from several threads at once. */
#ifndef DYNVIT_H
#define DYNVIT_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dynvit_classifier dynvit_classifier;

/* What this thread's last call found wrong, a line; "" if it succeeded. Valid until the thread's next call. */
const char* dynvit_error(void);

/* model_file: a bundle (dynvit export --format bundle), a training's weights, or a PyTorch checkpoint.
 * options: NULL, or settings separated by commas: "keep_ratio=0.7,device=cuda,precision=bfloat16,model=deit_tiny"; see
 * dynvit/infer/classifier.hpp; precision is float32, bfloat16, float16, int8 or float8; policy=NAME says who selects, and
 * threshold=0.4, in place of keep_ratio and policy, is one for all stages. mean=0.485:0.456:0.406, std=0.5 (one number:
 * all three colours), interpolation=bilinear, crop=squash, resize=256 and crop_pct=0.9 say how pictures are prepared,
 * in place of what the file says. Returns NULL for an error. */
dynvit_classifier* dynvit_open(const char* model_file, const char* options);
void dynvit_close(dynvit_classifier* classifier);

/* How many classes the model tells apart, and a class's name: "" where the file knows none, NULL for no such class. */
int32_t dynvit_class_count(const dynvit_classifier* classifier);
const char* dynvit_class_name(const dynvit_classifier* classifier, int32_t index);

/* Writes the `count` likeliest classes, falling, with their probabilities, of a picture file (JPEG, PNG, WebP, GIF, BMP,
 * TIFF) or of an RGB picture in memory (height rows of width x 3 bytes). Returns how many it wrote, or -1 for an error. */
int32_t dynvit_classify_file(const dynvit_classifier* classifier, const char* picture, int32_t count, int32_t* classes,
                             float* probabilities);
int32_t dynvit_classify_rgb(const dynvit_classifier* classifier, const uint8_t* pixels, int32_t width, int32_t height,
                            int32_t count, int32_t* classes, float* probabilities);

#ifdef __cplusplus
}
#endif

#endif
