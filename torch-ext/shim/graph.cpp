// Recorded device work (CUDA graphs).
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/torch.h>

#include "guarded.h"

namespace {
struct Graph {
  at::cuda::CUDAGraph graph;
  // Work is recorded on a stream beside the one on which it is run.
  c10::cuda::CUDAStream side;
};

// From here to `end` what the calling thread does goes to the side stream. Recordings that lend each other memory (`shares`)
// also share that stream, and with it the workspaces of the libraries.
char* enter(int device, Graph* shares, Graph** out) {
  return guarded([&] {
    auto index = static_cast<c10::DeviceIndex>(device);
    c10::cuda::CUDAGuard guard(index);
    c10::cuda::device_synchronize();
    *out = new Graph{{}, shares ? shares->side : c10::cuda::getStreamFromPool(false, index)};
    c10::cuda::setCurrentCUDAStream((*out)->side);
  });
}

char* begin(Graph* graph, Graph* shares) {
  return guarded([&] {
    c10::cuda::CUDAGuard guard(graph->side.device_index());
    c10::cuda::device_synchronize();
    at::cuda::MempoolId_t pool{0, 0};
    if (shares) pool = shares->graph.pool();
    // Other threads may go on with their own work meanwhile.
    graph->graph.capture_begin(pool, cudaStreamCaptureModeThreadLocal);
  });
}

// Leaves the side stream, whatever happened; a recording that has begun is ended.
char* end(Graph* graph, int begun) {
  char* message = begun ? guarded([&] { graph->graph.capture_end(); }) : nullptr;
  char* back = guarded(
      [&] { c10::cuda::setCurrentCUDAStream(c10::cuda::getDefaultCUDAStream(graph->side.device_index())); });
  if (!message) return back;
  free_message(back);
  return message;
}

char* replay(Graph* graph) {
  return guarded([&] {
    c10::cuda::CUDAGuard guard(graph->side.device_index());
    graph->graph.replay();
  });
}

void drop(Graph* graph) {
  unreported([&] { delete graph; });
}
}  // namespace

extern "C" const struct {
  char* (*enter)(int, Graph*, Graph**);
  char* (*begin)(Graph*, Graph*);
  char* (*end)(Graph*, int);
  char* (*replay)(Graph*);
  void (*drop)(Graph*);
} te_graphs = {enter, begin, end, replay, drop};
