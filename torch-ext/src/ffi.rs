//! The shim's functions as they are declared in C.
use crate::error::{Error, Result};
use std::ffi::{CStr, CString, c_char, c_double, c_int, c_void};
use tch::{Kind, Tensor};

pub(crate) type Ptr = *mut c_void;

unsafe extern "C" {
    pub(crate) fn te_free(message: *mut c_char);
    pub(crate) fn te_count_allocations() -> *mut c_char;
    pub(crate) fn te_allocations(now: *mut i64, most: *mut i64);
    pub(crate) fn te_find_driver() -> *mut c_char;
    pub(crate) fn te_load_cuda() -> *mut c_char;
    pub(crate) fn te_driver_state(version: *mut c_int, status: *mut c_int) -> *mut c_char;
    pub(crate) fn te_card(
        index: c_int,
        name: *mut c_char,
        size: c_int,
        memory: *mut u64,
        major: *mut c_int,
        minor: *mut c_int,
    ) -> *mut c_char;
    pub(crate) fn te_library_version(library: *const c_char, version: *mut i64) -> *mut c_char;
    pub(crate) fn te_fused_attention(flash: *mut c_int, efficient: *mut c_int, cudnn: *mut c_int) -> *mut c_char;
    pub(crate) fn te_cuda_runtime_version(version: *mut i64) -> *mut c_char;
    pub(crate) fn te_cuda_part(library: *const c_char, name: *const c_char, out: *mut Ptr) -> *mut c_char;
    pub(crate) fn te_autocast_get(device: c_int, enabled: *mut c_int, dtype: *mut c_int) -> *mut c_char;
    pub(crate) fn te_autocast_set(device: c_int, enabled: c_int, dtype: c_int, enter: c_int) -> *mut c_char;
    pub(crate) fn te_fused_adamw(
        params: *const Ptr,
        grads: *const Ptr,
        exp_avgs: *const Ptr,
        exp_avg_sqs: *const Ptr,
        steps: *const Ptr,
        n: usize,
        lr: Ptr,
        beta1: c_double,
        beta2: c_double,
        weight_decay: c_double,
        eps: c_double,
        found_inf: Ptr,
    ) -> *mut c_char;
    pub(crate) fn te_zero(tensors: *const Ptr, n: usize) -> *mut c_char;
    pub(crate) fn te_unscale(grads: *const Ptr, n: usize, found_inf: Ptr, inv_scale: Ptr) -> *mut c_char;
    pub(crate) fn te_update_scale(
        scale: Ptr,
        growth_tracker: Ptr,
        found_inf: Ptr,
        growth: c_double,
        backoff: c_double,
        interval: i64,
    ) -> *mut c_char;
    pub(crate) fn te_total_norm(tensors: *const Ptr, n: usize, out: *mut Ptr) -> *mut c_char;
    pub(crate) fn te_clip_by_norm(tensors: *const Ptr, n: usize, max_norm: c_double, out: *mut Ptr) -> *mut c_char;
    pub(crate) fn te_checkpoint(
        input: Ptr,
        segment: extern "C" fn(Ptr, Ptr, *mut c_char, usize) -> Ptr,
        data: Ptr,
        drop: extern "C" fn(Ptr),
        out: *mut Ptr,
    ) -> *mut c_char;
    pub(crate) fn te_device_memory(
        device: c_int,
        index: c_int,
        free: *mut u64,
        total: *mut u64,
        allocated: *mut u64,
        peak: *mut u64,
    ) -> *mut c_char;
    pub(crate) fn te_idle(device: c_int, index: c_int, idle: *mut c_int) -> *mut c_char;
    pub(crate) fn te_profile_begin(card: c_int) -> *mut c_char;
    pub(crate) fn te_profile_end(card: c_int, path: *const c_char) -> *mut c_char;
    pub(crate) fn te_span_begin(name: *const c_char, span: *mut Ptr) -> *mut c_char;
    pub(crate) fn te_span_end(span: Ptr);
    pub(crate) fn te_attention_of_sequences(
        query: Ptr,
        key: Ptr,
        value: Ptr,
        starts: Ptr,
        longest: i64,
        dropout: c_double,
        causal: c_int,
        out: *mut Ptr,
    ) -> *mut c_char;
    pub(crate) fn te_gather_rows(input: Ptr, rows: Ptr, back: Ptr, out: *mut Ptr) -> *mut c_char;
    pub(crate) fn te_flash_on_cpu() -> *mut c_char;
    pub(crate) fn te_pack(tensors: *const Ptr, n: usize, pinned: c_int) -> *mut c_char;
    pub(crate) fn te_send(tensors: *const Ptr, n: usize, device: c_int, index: c_int) -> *mut c_char;
    pub(crate) fn te_receive(tensors: *const Ptr, n: usize, out: *mut Ptr) -> *mut c_char;
    pub(crate) fn te_calls_begin(handle: *mut u64) -> *mut c_char;
    pub(crate) fn te_calls_end(handle: u64, text: *mut *mut c_char) -> *mut c_char;
    pub(crate) fn te_gelu(x: Ptr, out: *mut Ptr) -> *mut c_char;
    pub(crate) fn te_linear_set(set: *mut c_int) -> *mut c_char;
    pub(crate) fn te_linear(x: Ptr, packed: Ptr, bias: Ptr, set: c_int, out: *mut Ptr) -> *mut c_char;
    pub(crate) fn te_onednn_supported(supported: *mut c_int) -> *mut c_char;
    pub(crate) fn te_onednn_pack(weight: Ptr, out: *mut Ptr) -> *mut c_char;
    pub(crate) fn te_onednn_linear(x: Ptr, packed: Ptr, bias: Ptr, gelu: c_int, out: *mut Ptr) -> *mut c_char;
    pub(crate) fn te_empty_cache(device: c_int) -> *mut c_char;
    pub(crate) fn te_store_new(
        host: *const c_char,
        port: u16,
        server: c_int,
        timeout_ms: i64,
        prefix: *const c_char,
        out: *mut Ptr,
        listens: *mut u16,
    ) -> *mut c_char;
    pub(crate) fn te_store_free(store: Ptr);
    pub(crate) fn te_store_set(store: Ptr, key: *const c_char, data: *const u8, length: usize) -> *mut c_char;
    pub(crate) fn te_store_get(
        store: Ptr,
        key: *const c_char,
        found: *mut c_int,
        data: *mut *mut c_char,
        length: *mut usize,
    ) -> *mut c_char;
    pub(crate) fn te_store_add(store: Ptr, key: *const c_char, number: i64, sum: *mut i64) -> *mut c_char;
    pub(crate) fn te_group_new(
        store: Ptr,
        number: c_int,
        rank: c_int,
        size: c_int,
        timeout_ms: i64,
        host: *const c_char,
        interface: *const c_char,
        nccl: Ptr,
        out: *mut Ptr,
    ) -> *mut c_char;
    pub(crate) fn te_group_free(group: Ptr);
    pub(crate) fn te_group_all_reduce(group: Ptr, tensor: Ptr, op: c_int) -> *mut c_char;
    pub(crate) fn te_group_broadcast(group: Ptr, tensors: *const Ptr, n: usize, root: c_int) -> *mut c_char;
    pub(crate) fn te_group_all_gather(group: Ptr, tensor: Ptr, out: *const Ptr, n: usize) -> *mut c_char;
    pub(crate) fn te_group_barrier(group: Ptr) -> *mut c_char;
    pub(crate) fn te_reducer_new(
        group: Ptr,
        params: *const Ptr,
        n: usize,
        first_bytes: i64,
        bytes: i64,
        compressed: c_int,
        out: *mut Ptr,
    ) -> *mut c_char;
    pub(crate) fn te_reducer_free(reducer: Ptr, group: Ptr);
    pub(crate) fn te_reducer_backward(reducer: Ptr, group: Ptr, loss: Ptr, peers: *mut c_int) -> *mut c_char;
    pub(crate) fn te_reducer_nothing(params: *const Ptr, n: usize, out: *mut Ptr) -> *mut c_char;
    pub(crate) fn te_reducer_buckets(reducer: Ptr) -> usize;
    pub(crate) fn te_reducer_trace(reducer: Ptr, out: *mut Bucket, n: usize, found: *mut usize) -> *mut c_char;
}

/// What was done with one bucket of gradients.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Bucket {
    /// Bytes that travelled from each rank.
    pub bytes: i64,
    /// Seconds from the beginning of the backward pass until its gradients were there and it was sent.
    pub ready: f64,
    /// Seconds until the sum over the ranks was there.
    pub reduced: f64,
}

/// Turns the shim's message into an error.
pub(crate) fn check(message: *mut c_char) -> Result<()> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: the shim's messages are NUL-terminated. One of the single byte `!` is a constant of the shim's, not allocated.
    let constant = unsafe { CStr::from_ptr(message) } == c"!";
    Err(Error::of_shim(&if constant { "!".to_owned() } else { text(message) }))
}

/// A string for the shim.
pub(crate) fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| error!(Argument, "{text:?} has a NUL in it"))
}

/// Takes over a string of the shim's; NULL is empty.
pub(crate) fn text(text: *mut c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the shim hands out NUL-terminated strings that it allocated, and that are freed once, here.
    unsafe {
        let owned = CStr::from_ptr(text).to_string_lossy().into_owned();
        te_free(text);
        owned
    }
}

/// The `at::Tensor*` that a `tch` tensor holds. It is alive as long as the tensor is; the shim does not free it.
pub(crate) fn ptr(tensor: &Tensor) -> Ptr {
    tensor.as_ptr() as Ptr
}

pub(crate) fn ptrs(tensors: &[Tensor]) -> Vec<Ptr> {
    tensors.iter().map(ptr).collect()
}

/// Takes over a tensor that the shim allocated with `new`.
pub(crate) fn owned(tensor: Ptr) -> Tensor {
    // SAFETY: called once for each pointer that the shim hands out; `tch` frees it with `delete`.
    unsafe { Tensor::from_ptr(tensor.cast()) }
}

/// The tensor that a function of the shim puts into its out-pointer.
pub(crate) fn new_tensor(call: impl FnOnce(*mut Ptr) -> *mut c_char) -> Result<Tensor> {
    let mut out = std::ptr::null_mut();
    check(call(&mut out))?;
    if out.is_null() { Err(error!(Internal, "libtorch gave no tensor")) } else { Ok(owned(out)) }
}

/// libtorch's index of a device; the CPU has none.
pub(crate) fn device_index(device: tch::Device) -> c_int {
    match device {
        tch::Device::Cuda(index) => index as c_int,
        _ => -1,
    }
}

/// libtorch's number of a device type.
pub(crate) fn device_type(device: tch::Device) -> c_int {
    match device {
        tch::Device::Cpu => 0,
        tch::Device::Cuda(_) => 1,
        tch::Device::Mps => 13,
        tch::Device::Vulkan => 10,
    }
}

/// libtorch's number of a kind that computations run in; nothing for others.
pub(crate) fn float_type(kind: Kind) -> Option<c_int> {
    match kind {
        Kind::Half => Some(5),
        Kind::Float => Some(6),
        Kind::BFloat16 => Some(15),
        _ => None,
    }
}
