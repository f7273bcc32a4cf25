//! Patches: pieces of ABC as rows of 16 characters (the original's `Patchilizer` in `pretrain/utils.py`).
use crate::{Error, Result};

/// A piece as patches of one size, filled with the special character 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patches {
    size: usize,
    characters: Vec<u8>,
}

impl Patches {
    /// No patches yet.
    pub fn new(size: usize) -> Patches {
        Patches { size, characters: Vec::new() }
    }

    /// From whole rows of `size` characters.
    pub fn from_rows(size: usize, rows: &[&[u8]]) -> Result<Patches> {
        let mut patches = Patches::new(size);
        for row in rows {
            if row.len() != size {
                let (expected, found) = (vec![size as i64], vec![row.len() as i64]);
                return Err(Error::Shape { what: "a patch".into(), expected, found });
            }
            patches.characters.extend_from_slice(row);
        }
        Ok(patches)
    }

    /// From the characters of whole patches.
    pub(crate) fn from_characters(size: usize, characters: Vec<u8>) -> Patches {
        Patches { size, characters }
    }

    /// Characters in a patch.
    pub fn patch_size(&self) -> usize {
        self.size
    }

    /// Patches.
    pub fn len(&self) -> usize {
        self.characters.len().checked_div(self.size).unwrap_or(0)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.characters.is_empty()
    }

    /// The characters of one patch.
    pub fn row(&self, place: usize) -> &[u8] {
        &self.characters[place * self.size..(place + 1) * self.size]
    }

    /// All characters, patch after patch.
    pub fn characters(&self) -> &[u8] {
        &self.characters
    }
}

/// Fills what a patch does not need.
pub(crate) const PADDING: u8 = 0;
/// Begins a patch, and fills the first.
pub(crate) const BOS: u8 = 1;
/// Ends a patch, and fills the last.
pub(crate) const EOS: u8 = 2;
/// In the order in which the original tries them.
pub(crate) const BARLINES: [&str; 7] = ["|:", "::", ":|", "[|", "||", "|]", "|"];

/// What generation goes on from: whole patches, and the characters of a patch that is not finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// Whole patches.
    pub patches: Patches,
    /// Fewer characters than a patch has; often none.
    pub partial: Vec<u8>,
}

/// Turns ABC into patches and back.
///
/// ```
/// let patchiliser = model::patches::Patchiliser::new(16)?;
/// let patches = patchiliser.encode_train("K:C\n[V:1]ABcd|\n", 1024, &mut |_| 0)?;
/// assert_eq!(patchiliser.decode(patches.row(1)), "K:C\n");
/// assert_eq!(patchiliser.decode(patches.row(2)), "[r:0/0][V:1]ABcd");
/// # Ok::<(), model::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patchiliser {
    size: usize,
}

impl Patchiliser {
    /// For patches of `size` characters, at least two.
    pub fn new(size: usize) -> Result<Patchiliser> {
        if size < 2 {
            return Err(Error::Invalid(format!("a patch of {size} characters has no room for its marks")));
        }
        Ok(Patchiliser { size })
    }

    /// Characters in a patch.
    pub fn patch_size(&self) -> usize {
        self.size
    }

    /// The patch that opens every piece.
    pub fn bos_patch(&self) -> Vec<u8> {
        let mut patch = vec![BOS; self.size];
        patch[self.size - 1] = EOS;
        patch
    }

    /// The patch that ends every piece.
    pub fn eos_patch(&self) -> Vec<u8> {
        let mut patch = vec![EOS; self.size];
        patch[0] = BOS;
        patch
    }

    /// Interleaved ABC as one piece of training data (`encode_train`), of at most `patch_length` patches.
    ///
    /// A longer piece keeps its metadata and its beginning, its end, or lines from the middle: `pick(n)` draws from
    /// `0..n`. Errors where a character is outside 1–127 or no line has a voice.
    pub fn encode_train(
        &self,
        abc: &str,
        patch_length: usize,
        pick: &mut dyn FnMut(usize) -> usize,
    ) -> Result<Patches> {
        check_characters(abc)?;
        let lines: Vec<&str> = abc.split('\n').filter(|line| !line.is_empty()).collect();
        let Some(body) = lines.iter().position(|line| line.contains("[V:")) else {
            return Err(Error::Invalid("no line of music: none has a voice such as [V:1]".to_owned()));
        };
        let music = lines.len() - body;
        let tagged = lines[body..].iter().enumerate().map(|(i, line)| format!("[r:{i}/{}]{line}\n", music - i - 1));
        Ok(self.piece(&lines[..body], &tagged.collect::<Vec<_>>(), patch_length, pick))
    }

    /// As [`Patchiliser::encode_train`], of a text as the network writes it, whose lines of music have their tags
    /// already (`encode` in the original's `RL/utils.py`). The music begins at the first line with `[r:`; a text
    /// without one is encoded, and tagged, as training data.
    pub fn encode_tagged(
        &self,
        abc: &str,
        patch_length: usize,
        pick: &mut dyn FnMut(usize) -> usize,
    ) -> Result<Patches> {
        let lines: Vec<&str> = abc.split('\n').filter(|line| !line.is_empty()).collect();
        let Some(body) = lines.iter().position(|line| line.starts_with("[r:")) else {
            return self.encode_train(abc, patch_length, pick);
        };
        check_characters(abc)?;
        let music: Vec<String> = lines[body..].iter().map(|line| format!("{line}\n")).collect();
        Ok(self.piece(&lines[..body], &music, patch_length, pick))
    }

    /// Metadata and tagged lines of music between the patches that open and end a piece.
    fn piece(
        &self,
        metadata: &[&str],
        music: &[String],
        patch_length: usize,
        pick: &mut dyn FnMut(usize) -> usize,
    ) -> Patches {
        let mut patches = Patches::new(self.size);
        patches.characters.extend(self.bos_patch());
        for line in metadata {
            self.split(&format!("{line}\n"), true, &mut patches);
        }
        let whole = self.body(music);
        // The end patch counts in the length, and is cut off like any other.
        let total = patches.len() + whole.len() + 1;
        let from = if total > patch_length { cut(&whole, total - patch_length, pick) } else { 0 };
        let kept = if from == 0 { whole } else { self.body(&music[from..]) };
        patches.characters.extend(kept.characters);
        patches.characters.extend(self.eos_patch());
        patches.characters.truncate(patch_length * self.size);
        patches
    }

    /// Interleaved ABC to go on from (`encode_generate`): the last bar is left open.
    pub fn encode_generate(&self, abc: &str, patch_length: usize) -> Result<Prompt> {
        check_characters(abc)?;
        self.reencode(abc, patch_length)
    }

    /// As [`Patchiliser::encode_generate`], of a text that the network wrote itself, whatever its characters.
    pub(crate) fn reencode(&self, abc: &str, patch_length: usize) -> Result<Prompt> {
        let mut lines: Vec<String> =
            abc.split('\n').filter(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect();
        let body = lines.iter().position(|line| line.starts_with("[V:") || line.starts_with("[r:"));
        if let (Some(_), Some(last), false) = (body, lines.last_mut(), abc.ends_with('\n')) {
            last.pop();
        }
        let mut patches = Patches::new(self.size);
        patches.characters.extend(self.bos_patch());
        for line in &lines[..body.unwrap_or(lines.len())] {
            self.split(line, true, &mut patches);
        }
        let mut partial = Vec::new();
        let bars = split_bars(&lines[body.unwrap_or(lines.len())..]);
        if let Some((last, whole)) = bars.split_last() {
            for bar in whole {
                self.split(bar, true, &mut patches);
            }
            partial = self.split(last, false, &mut patches);
        }
        if patches.len() >= patch_length {
            patches.characters.truncate(patch_length * self.size);
            partial.clear();
        }
        Ok(Prompt { patches, partial })
    }

    /// Metadata lines, such as a prompt, behind the opening patch.
    pub fn encode_metadata(&self, lines: &[String]) -> Result<Patches> {
        let mut patches = Patches::new(self.size);
        patches.characters.extend(self.bos_patch());
        for line in lines {
            check_characters(line)?;
            self.split(line, true, &mut patches);
        }
        Ok(patches)
    }

    /// The text of one patch: its characters before the first end mark.
    pub fn decode(&self, patch: &[u8]) -> String {
        patch.iter().take_while(|&&c| c != EOS).map(|&c| char::from(c)).collect()
    }

    fn body(&self, lines: &[String]) -> Patches {
        let mut patches = Patches::new(self.size);
        for bar in split_bars(lines) {
            self.split(&bar, true, &mut patches);
        }
        patches
    }

    /// Appends a text as patches. What does not fill a patch is ended and filled where `ended`, and returned otherwise.
    fn split(&self, text: &str, ended: bool, patches: &mut Patches) -> Vec<u8> {
        let bytes = text.as_bytes();
        let rest = bytes.len() % self.size;
        let (whole, rest) = bytes.split_at(bytes.len() - rest);
        patches.characters.extend_from_slice(whole);
        if rest.is_empty() {
            return Vec::new();
        }
        if !ended {
            return rest.to_vec();
        }
        patches.characters.extend_from_slice(rest);
        patches.characters.push(EOS);
        patches.characters.resize(patches.characters.len().next_multiple_of(self.size), PADDING);
        Vec::new()
    }
}

/// The first line to keep of a piece that is `excess` patches too long.
fn cut(body: &Patches, excess: usize, pick: &mut dyn FnMut(usize) -> usize) -> usize {
    let ends = (0..body.len()).filter(|&i| body.row(i).contains(&b'\n')).map(|i| i + 1);
    let starts: Vec<usize> = std::iter::once(0).chain(ends).collect();
    // Starts up to the first from which all the rest fits.
    let last = starts.partition_point(|&start| start < excess).min(starts.len() - 1);
    match (last, if last == 0 { 0 } else { pick((last + 1).min(3)) }) {
        (_, 0) => 0,
        (last, 1) => last,
        (last, _) => 1 + pick(last - 1),
    }
}

/// Lines to bars, each behind the barline that opens it, as the original splits them (`split_bars`). A line that the
/// original's code fails on ends the music there, and so it does here.
fn split_bars(lines: &[String]) -> Vec<String> {
    let mut bars: Vec<String> = Vec::new();
    for line in lines {
        let parts = split_at_barlines(line);
        if parts.len() == 1 {
            bars.push(parts[0].to_owned());
            continue;
        }
        let lead = usize::from(!parts.first().is_some_and(|part| BARLINES.contains(part)));
        if parts.is_empty() || (parts.len() - lead) % 2 == 1 {
            return bars;
        }
        let mut of_line: Vec<String> = parts[..lead].iter().map(|&part| part.to_owned()).collect();
        of_line.extend(parts[lead..].chunks(2).map(|pair| pair.concat()));
        if let Some(last) = of_line.pop() {
            if last.contains('V') {
                of_line.push(last);
            } else if let Some(before) = of_line.last_mut() {
                before.push_str(&last);
            } else {
                return bars;
            }
        }
        bars.extend(of_line);
    }
    bars
}

/// Python's `re.split` with the barlines as a group, without empty parts.
pub(crate) fn split_at_barlines(line: &str) -> Vec<&str> {
    let (mut parts, mut start, mut at) = (Vec::new(), 0, 0);
    while at < line.len() {
        match BARLINES.iter().find(|barline| line.as_bytes()[at..].starts_with(barline.as_bytes())) {
            Some(barline) => {
                if start < at {
                    parts.push(&line[start..at]);
                }
                parts.push(&line[at..at + barline.len()]);
                at += barline.len();
                start = at;
            }
            None => at += 1,
        }
    }
    if start < line.len() {
        parts.push(&line[start..]);
    }
    parts
}

/// Refuses what the vocabulary does not have, with its place.
pub fn check_characters(abc: &str) -> Result<()> {
    for (i, line) in abc.split('\n').enumerate() {
        if let Some((column, character)) = line.chars().enumerate().find(|&(_, c)| c == '\0' || !c.is_ascii()) {
            return Err(Error::Character { line: i + 1, column: column + 1, character });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.split_inclusive('\n').map(str::to_owned).collect()
    }

    #[test]
    fn bars_keep_the_barline_that_opens_them_and_the_last_takes_the_end() {
        assert_eq!(split_bars(&lines("[V:1]A|[V:2]B|\n")), ["[V:1]A", "|[V:2]B|\n"]);
        assert_eq!(split_bars(&lines("|:[V:1]A:|[V:2]B:|\n")), ["|:[V:1]A", ":|[V:2]B:|\n"]);
        assert_eq!(split_bars(&lines("no barline\n")), ["no barline\n"]);
    }

    #[test]
    fn a_line_that_the_original_fails_on_ends_the_music() {
        assert_eq!(split_bars(&lines("[V:1]A|\n[V:1]B|| |[V:2]C||::\n[V:1]D|\n")), ["[V:1]A|\n"]);
    }

    #[test]
    fn characters_that_are_not_ascii_are_named_with_their_place() {
        let error = Patchiliser::new(16).unwrap().encode_train("L:1/8\n[V:1]é|\n", 8, &mut |_| 0).unwrap_err();
        assert!(error.to_string().starts_with("line 2, column 6: the character 'é' is not one of the network's"));
    }

    #[test]
    fn nul_is_refused_and_not_called_no_ascii() {
        let error = Patchiliser::new(16).unwrap().encode_train("L:1/8\n[V:1]\0|\n", 8, &mut |_| 0).unwrap_err();
        let text = "line 2, column 6: the character '\\0' is not one of the network's (ASCII 1 to 127)";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn a_prompt_leaves_its_last_bar_open() {
        let p = Patchiliser::new(16).unwrap().encode_generate("L:1/8\n[r:0/", 64).unwrap();
        assert_eq!((p.patches.len(), p.partial), (2, b"[r:0/".to_vec()));
    }

    #[test]
    fn what_is_encoded_decodes_to_the_tagged_text() {
        let patchiliser = Patchiliser::new(16).unwrap();
        let patches = patchiliser.encode_train("K:C\n[V:1]ABcd|[V:2]E4|\n[V:1]e4|\n", 64, &mut |_| 0).unwrap();
        let text: String = (1..patches.len() - 1).map(|i| patchiliser.decode(patches.row(i))).collect();
        assert_eq!(text, "K:C\n[r:0/1][V:1]ABcd|[V:2]E4|\n[r:1/0][V:1]e4|\n");
        assert_eq!(patches.row(patches.len() - 1), patchiliser.eos_patch());
    }

    #[test]
    fn a_text_with_tags_is_encoded_as_the_text_that_they_were_given_to() {
        let patchiliser = Patchiliser::new(16).unwrap();
        let (plain, tagged) = ("K:C\n[V:1]A|\n[V:1]B|\n", "K:C\n[r:0/1][V:1]A|\n[r:1/0][V:1]B|\n");
        let expected = patchiliser.encode_train(plain, 64, &mut |_| 0).unwrap();
        assert_eq!(patchiliser.encode_tagged(tagged, 64, &mut |_| 0).unwrap(), expected);
        assert_eq!(patchiliser.encode_tagged(plain, 64, &mut |_| 0).unwrap(), expected);
        // Tags are the network's own, right or wrong.
        let wrong = patchiliser.encode_tagged("K:C\n[r:7/7][V:1]A|\n", 64, &mut |_| 0).unwrap();
        assert_eq!(patchiliser.decode(wrong.row(2)), "[r:7/7][V:1]A|\n");
    }
}
