//! What ends a conversion.

/// Something that is wrong with a score, so that it cannot be converted.
#[derive(Debug)]
pub(super) struct Fault {
    /// Byte of the text; `None` if the fault is about the whole file.
    pub at: Option<usize>,
    /// What is wrong.
    pub problem: String,
}

impl Fault {
    /// A fault of the whole file.
    pub(super) fn whole(problem: impl Into<String>) -> Fault {
        Fault { at: None, problem: problem.into() }
    }
}
