//! MTF, MIDI as text (arXiv 2410.13267, section 3.1; the first branch of the original's `M3Patchilizer.encode`): one
//! message a line, its name first.

/// Whether a text is MTF.
pub(super) fn is_mtf(text: &str) -> bool {
    text.starts_with("ticks_per_beat ") || text == "ticks_per_beat"
}

/// Messages of one name in a row share a patch of `size` characters where they fit, parted by tabs.
pub(super) fn patches(text: &str, size: usize) -> Vec<String> {
    let mut patches: Vec<String> = Vec::new();
    for line in text.split_inclusive('\n') {
        let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
        match patches.last_mut() {
            // Two characters are for the marks of beginning and end.
            Some(patch) if patch.starts_with(name) && patch.len() + rest.len() + 2 <= size => {
                patch.pop();
                patch.push('\t');
                patch.push_str(rest);
            }
            _ => patches.push(line.to_owned()),
        }
    }
    patches
}
