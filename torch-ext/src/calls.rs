//! Counts calls of libtorch's operators, so that a test can keep what a step launches within a budget.
use crate::Result;
use crate::ffi::{check, te_calls_begin, te_calls_end, text};
use std::collections::BTreeMap;

/// How often an operator was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calls {
    /// In all.
    pub all: usize,
    /// Not from inside another operator. An operator on a list of tensors is one call on a GPU, and many on a CPU.
    pub outer: usize,
}

/// Runs `work` and counts the operators that this thread calls in it, backward passes on the CPU included, by name
/// (`aten::add`).
pub fn count_calls<T>(work: impl FnOnce() -> T) -> Result<(T, BTreeMap<String, Calls>)> {
    let mut handle = 0;
    // SAFETY: an out-pointer.
    check(unsafe { te_calls_begin(&mut handle) })?;
    let done = work();
    let mut lines = std::ptr::null_mut();
    // SAFETY: the handle of the same thread, and an out-pointer.
    check(unsafe { te_calls_end(handle, &mut lines) })?;
    let lines = text(lines);
    let read = |line: &str| {
        let (all, rest) = line.split_once(' ')?;
        let (outer, name) = rest.split_once(' ')?;
        Some((name.to_owned(), Calls { all: all.parse().ok()?, outer: outer.parse().ok()? }))
    };
    Ok((done, lines.lines().filter_map(read).collect()))
}

/// How many of the counted calls a device would launch a kernel for: not views and allocations.
pub fn launched(calls: &BTreeMap<String, Calls>) -> usize {
    const NONE: [&str; 11] =
        ["empty", "view", "detach", "select", "narrow", "slice", "as_strided", "unsqueeze", "alias", "transpose", "t"];
    let launches = |name: &str| !NONE.iter().any(|view| name.strip_prefix("aten::") == Some(view));
    calls.iter().filter(|(name, _)| launches(name)).map(|(_, calls)| calls.outer).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor};

    #[test]
    fn operators_are_counted_while_the_work_runs_and_no_longer() {
        let a = Tensor::ones([4, 4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let (value, calls) = count_calls(|| {
            let sum = a.matmul(&a).sum(Kind::Float);
            sum.backward();
            sum.double_value(&[])
        })
        .unwrap();
        assert_eq!(value, 64.0);
        // One product forward, two backward.
        assert_eq!((calls["aten::mm"].all, calls["aten::item"].outer), (3, 1), "{calls:?}");
        assert_eq!(calls["aten::_local_scalar_dense"], Calls { all: 1, outer: 0 });
        let _ = a.matmul(&a);
        assert_eq!(count_calls(|| ()).unwrap().1.len(), 0);
    }
}
