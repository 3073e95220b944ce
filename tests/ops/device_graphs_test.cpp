#include "dynvit/ops/device_graphs.hpp"

#include <ATen/ATen.h>

#include "tensor_support.hpp"

namespace dynvit {
namespace {

TEST(DeviceGraphs, ReplayWhatWasRecorded) {
    if (!DeviceGraphs::supported(at::hasCUDA() ? at::kCUDA : at::kCPU)) GTEST_SKIP() << "needs a GPU and its kernels";
    DeviceGraphs graphs(at::Device(at::kCUDA, 0));
    at::Tensor input = at::zeros({1000}, at::kCUDA), first, second;
    const std::size_t a = graphs.record([&] { first = (input + 1) * 2; });
    const std::size_t b = graphs.record([&] { second = (input - 1) * 3; });
    EXPECT_NE(a, b);
    for (int i = 0; i < 3; ++i) {
        at::Tensor one, other;
        graphs.run(
            a, [&] { input.fill_(i); }, [&] { one = first.clone(); });
        graphs.run(
            b, [&] { input.fill_(10 * i); }, [&] { other = second.clone(); });
        EXPECT_TRUE(one.eq(2 * (i + 1)).all().item<bool>());
        EXPECT_TRUE(other.eq(3 * (10 * i - 1)).all().item<bool>());
    }
    EXPECT_ANY_THROW(graphs.record([&] { input.cpu(); }));  // waits
    at::Tensor after;
    graphs.run(
        a, [&] { input.fill_(5); }, [&] { after = first.clone(); });
    EXPECT_TRUE(after.eq(12).all().item<bool>());
}

}  // namespace
}  // namespace dynvit
