//! A process of its own: what libtorch was asked about CUDA first counts for all of it.

/// Asked whether CUDA is there before its library was loaded, libtorch said no for the life of the process, and the first
/// H100 was not found.
#[test]
fn hooks_are_those_of_cuda_once_its_library_is_loaded() {
    match torch_ext::load_cuda_library() {
        Ok(()) => {
            tch::manual_seed(1);
            assert!(torch_ext::cuda_runtime_version().unwrap() >= 13_000);
        }
        // The CPU set: the message names the library that is missing.
        Err(error) => {
            assert!(error.to_string().contains(".so"), "{error}");
            assert!(torch_ext::cuda_runtime_version().is_err());
        }
    }
}
