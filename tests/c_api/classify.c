/* What a program in C does, which also shows that the header is C. See c_api_test.cpp. */
#include "dynvit/dynvit.h"

int classify_in_c(const char* model, const char* picture, int32_t* classes, float* probabilities, int32_t count) {
    dynvit_classifier* classifier = dynvit_open(model, "keep_ratio=0.5,precision=float32");
    int found = classifier ? dynvit_classify_file(classifier, picture, count, classes, probabilities) : -2;
    dynvit_close(classifier);
    return found;
}
