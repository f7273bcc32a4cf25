// What NCCL, in the CUDA part of the program, has in common with the rest.
#pragma once
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <chrono>

using MakeNccl = char* (*)(const c10::intrusive_ptr<c10d::Store>* store, int rank, int size,
                           std::chrono::milliseconds timeout, c10::intrusive_ptr<c10d::Backend>* out);
