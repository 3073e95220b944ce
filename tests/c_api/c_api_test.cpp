#include "dynvit/core/files.hpp"
#include "dynvit/dynvit.h"
#include "dynvit/infer/classifier.hpp"
#include "models/golden_model.hpp"

extern "C" int classify_in_c(const char* model, const char* picture, std::int32_t* classes, float* probabilities,
                             std::int32_t count);

namespace dynvit {
namespace {

class CApi : public testing::Test {
  protected:
    void SetUp() override {
        write_model_file(folder_ / "model.safetensors", *test::tiny_student());
        Image image(200, 120);
        for (std::size_t i = 0; i < image.pixels.size(); ++i) image.pixels[i] = static_cast<std::uint8_t>(i * 7 % 256);
        picture_ = image;
        write_png(folder_ / "picture.png", image);
        model_ = (folder_ / "model.safetensors").string();
    }
    test::TemporaryFolder folder_;
    std::string model_;
    Image picture_;
};

TEST_F(CApi, GivesWhatTheClassifierGives) {
    const Classification expected = Classifier(model_, {.keep_ratio = 0.5}).classify(picture_, 3);
    std::int32_t classes[3] = {-1, -1, -1};
    float probabilities[3] = {};
    ASSERT_EQ(classify_in_c(model_.c_str(), (folder_ / "picture.png").c_str(), classes, probabilities, 3), 3)
        << dynvit_error();
    for (int i = 0; i < 3; ++i) {
        EXPECT_EQ(classes[i], expected.classes[i].index);
        EXPECT_NEAR(probabilities[i], expected.classes[i].probability, 1e-6);
    }
    dynvit_classifier* classifier = dynvit_open(model_.c_str(), "keep_ratio=0.5");
    ASSERT_NE(classifier, nullptr) << dynvit_error();
    EXPECT_EQ(dynvit_class_count(classifier), 10);
    EXPECT_STREQ(dynvit_class_name(classifier, 3), "");
    std::int32_t many[20];
    float of_many[20];
    EXPECT_EQ(dynvit_classify_rgb(classifier, picture_.pixels.data(), 200, 120, 20, many, of_many), 10)
        << "of ten classes";
    EXPECT_EQ(many[0], classes[0]);
    EXPECT_STREQ(dynvit_error(), "");
    dynvit_close(classifier);
}

TEST_F(CApi, PicturesArePreparedAsItIsTold) {
    const PreprocessingChanges changes{.mean = {0.5},
                                       .std = {0.25, 0.5, 0.2},
                                       .interpolation = "bilinear",
                                       .crop = "center",
                                       .resize = 230,
                                       .crop_pct = 0.9};
    const ClassScore expected =
        Classifier(model_, {.keep_ratio = 0.5, .preprocessing = changes}).classify(picture_, 1).classes[0];
    dynvit_classifier* classifier = dynvit_open(
        model_.c_str(),
        "keep_ratio=0.5,mean=0.5,std=0.25:0.5:0.2,interpolation=bilinear,crop=center,resize=230,crop_pct=0.9");
    ASSERT_NE(classifier, nullptr) << dynvit_error();
    std::int32_t index = -1;
    float probability = 0;
    EXPECT_EQ(dynvit_classify_rgb(classifier, picture_.pixels.data(), 200, 120, 1, &index, &probability), 1);
    EXPECT_EQ(index, expected.index);
    EXPECT_NEAR(probability, expected.probability, 1e-6);
    dynvit_close(classifier);
}

TEST_F(CApi, ErrorsAreALineAndNoException) {
    EXPECT_EQ(dynvit_open((folder_ / "none").c_str(), nullptr), nullptr);
    EXPECT_NE(std::string(dynvit_error()).find("none"), std::string::npos);
    const std::pair<const char*, const char*> wrong[] = {
        {"keep_ratio=much", "[options] keep_ratio: found 'much', expected a number"},
        {"ratio=0.7",
         "[options] found 'ratio', expected keep_ratio, policy, threshold, device, precision, model, mean, std, "
         "interpolation, crop, resize or crop_pct"},
        {"mean=", "[options] mean: found nothing, expected a number, or three between colons"},
        {"std=0.5:x:0.5", "[options] std: found 'x', expected a number"},
        {"resize=2.5", "[options] resize: found '2.5', expected pixels"},
        {"mean=0.1:0.2", "[pictures] mean: found 2 numbers, expected one, or one a colour: red, green, blue"},
        {"fast", "[options] found 'fast', expected KEY=VALUE"},
        {"precision=int3",
         "[precision] unknown precision 'int3'; expected one of float32, bfloat16, float16, int8, float8"},
        {"policy=best",
         "[policy] unknown selection policy 'best'; expected one of predicted, per_image, random, cls_attention, "
         "similarity, structural"},
        {"threshold=2", "[policy] per_image: found a threshold of 2, expected 0 to 1"},
        {"keep_ratio=2", "[keep-ratio] found 2, expected 0 (what the file says) to 1"}};
    for (const auto& [options, text] : wrong) {
        EXPECT_EQ(dynvit_open(model_.c_str(), options), nullptr) << options;
        EXPECT_STREQ(dynvit_error(), text);
    }
    EXPECT_EQ(dynvit_open(nullptr, nullptr), nullptr);
    EXPECT_STREQ(dynvit_error(), "[arguments] model_file is NULL");

    dynvit_classifier* classifier = dynvit_open(model_.c_str(), "");
    ASSERT_NE(classifier, nullptr) << dynvit_error();
    std::int32_t index = 0;
    float probability = 0;
    EXPECT_EQ(dynvit_classify_file(classifier, "missing.jpg", 1, &index, &probability), -1);
    EXPECT_NE(std::string(dynvit_error()).find("missing.jpg"), std::string::npos);
    EXPECT_EQ(dynvit_classify_rgb(classifier, picture_.pixels.data(), 0, 5, 1, &index, &probability), -1);
    EXPECT_STREQ(dynvit_error(), "[arguments] a picture of 0 x 5 pixels");
    EXPECT_EQ(dynvit_classify_rgb(classifier, picture_.pixels.data(), 200, 120, 0, &index, &probability), -1);
    EXPECT_STREQ(dynvit_error(), "[arguments] count: found 0, expected at least 1");
    EXPECT_EQ(dynvit_class_name(classifier, 10), nullptr);
    EXPECT_STREQ(dynvit_error(), "[arguments] class 10, expected 0 to 9");
    EXPECT_EQ(dynvit_class_count(nullptr), -1);
    dynvit_close(classifier);
    dynvit_close(nullptr);
}

}  // namespace
}  // namespace dynvit
