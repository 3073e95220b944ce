#include "dynvit/data/window_decoder.hpp"

#ifdef DYNVIT_NVJPEG
#include "cuda/nvjpeg_decoder.hpp"
#else
#include "dynvit/core/error.hpp"
#endif

namespace dynvit {

#ifdef DYNVIT_NVJPEG
std::unique_ptr<WindowDecoder> make_gpu_decoder(int width, int height, Filter filter) {
    return std::make_unique<cuda::NvjpegDecoder>(width, height, filter);
}
#else
std::unique_ptr<WindowDecoder> make_gpu_decoder(int, int, Filter) {
    throw Error("data",
                "data.gpu_decode: this build has no nvJPEG; the CMake preset cuda takes it from the CUDA toolkit or "
                "from PyPI's nvidia-nvjpeg beside LibTorch");
}
#endif

}  // namespace dynvit
