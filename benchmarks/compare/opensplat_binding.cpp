// What Python calls of OpenSplat's CPU rasterizer: its own functions, compiled from its sources beside this file's.

#include <torch/extension.h>

#include "project_gaussians.hpp"
#include "rasterize_gaussians.hpp"
#include "spherical_harmonics.hpp"
#include "ssim.hpp"

namespace {

struct View {
    torch::Tensor viewmat, projection;
    double fx, fy, cx, cy;
    int64_t width, height;
};

torch::Tensor render(const torch::Tensor &means, const torch::Tensor &scales, const torch::Tensor &quats,
                     const torch::Tensor &colors, const torch::Tensor &opacities, const torch::Tensor &background,
                     const View &view) {
    auto p = ProjectGaussiansCPU::apply(means, scales, 1.0f, quats, view.viewmat, view.projection, view.fx, view.fy,
                                        view.cx, view.cy, view.height, view.width);
    // The depths are a column of a matrix, and its rasterizer reads them as if they were an array of their own: without
    // contiguous() it sorts by other numbers.
    return RasterizeGaussiansCPU::apply(p[0], p[1], p[2], colors, opacities, p[3], p[4].contiguous(), view.height,
                                        view.width, background);
}

torch::Tensor sh_colors(const torch::Tensor &directions, const torch::Tensor &sh, int64_t degree) {
    return SphericalHarmonicsCPU::apply(degree, directions, sh);
}

torch::Tensor mean_ssim(const torch::Tensor &image, const torch::Tensor &photo) {
    static SSIM ssim(11, 3);
    return ssim.eval(image, photo);
}

} // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
    namespace py = pybind11;
    py::class_<View>(module, "View")
        .def(py::init([](torch::Tensor viewmat, torch::Tensor projection, std::array<double, 4> lens,
                         std::array<int64_t, 2> size) {
            return View{viewmat, projection, lens[0], lens[1], lens[2], lens[3], size[0], size[1]};
        }));
    module.def("render", &render);
    module.def("sh_colors", &sh_colors);
    module.def("mean_ssim", &mean_ssim);
}
