//! A process of its own: what libtorch was asked about CUDA first counts for all of it.

/// Seeding asks libtorch for CUDA. Where a driver is installed, CUDA's library is there before.
#[test]
fn asking_first_is_not_too_early() {
    tch::manual_seed(1);
    let loadable = torch_ext::find_driver().and_then(|()| torch_ext::load_cuda_library()).is_ok();
    assert_eq!(torch_ext::cuda_runtime_version().is_ok(), loadable);
}
