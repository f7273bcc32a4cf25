//! A process of its own: what libtorch was asked about CUDA first counts for all of it.

/// Without a driver nothing is loaded before `main`, and seeding asks libtorch for CUDA: the library then comes too late.
#[test]
fn loading_after_libtorch_was_asked_is_an_error() {
    tch::manual_seed(1);
    if torch_ext::find_driver().is_ok() {
        return;
    }
    let error = torch_ext::load_cuda_library().unwrap_err().to_string();
    // The CPU set: the message names the library that is missing.
    assert!(error.contains("too late") || error.contains(".so"), "{error}");
    assert!(torch_ext::cuda_runtime_version().is_err());
}
