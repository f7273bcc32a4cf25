//! A text that is being written, as header and whole bars with their rests put back.
use notation::rests;

/// What can be engraved of a text so far.
#[derive(Debug, Default, Clone)]
pub struct Growing {
    /// All lines before the music, prompt included.
    pub header: String,
    /// `[V:1]…|[V:2]…|`, a bar of all voices each.
    pub bars: Vec<String>,
    /// Bars that the last line of music says are to come.
    pub to_come: Option<usize>,
    /// The part of the text that is in here.
    read: usize,
}

impl Growing {
    /// Takes in the lines that are complete. Lines that make no sense stay out until others make sense of them.
    pub fn update(&mut self, text: &str) {
        let complete = text.rfind('\n').map_or(0, |end| end + 1);
        if complete > self.read {
            self.take(&text[..complete]);
        }
    }

    /// Takes in what is left of a text to which nothing comes any more.
    pub fn finish(&mut self, text: &str) {
        if text.len() > self.read {
            self.take(text);
        }
    }

    fn take(&mut self, text: &str) {
        self.read = text.len();
        let Some(last) = text.lines().rev().find(|line| line.contains("[V:")) else { return };
        self.to_come = to_come(last);
        let Ok(whole) = rests::unreduce_text(text) else { return };
        let music = whole.lines().position(|line| line.contains("[V:")).unwrap_or(0);
        if self.bars.is_empty() {
            self.header = whole.split_inclusive('\n').take(music).collect();
        }
        self.bars.extend(whole.lines().skip(music + self.bars.len()).map(str::to_owned));
    }

    /// Interleaved ABC as other programs read it.
    pub fn abc(&self) -> String {
        format!("X:1\n{}{}\n", self.header, self.bars.join("\n"))
    }
}

/// The second number of `[r:i/n]`.
fn to_come(line: &str) -> Option<usize> {
    line.strip_prefix("[r:")?.split_once(']')?.0.split_once('/')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "%Baroque\n%%score { 1 | 2 }\nL:1/8\nK:C\nV:1\nV:2\n[r:0/2][V:1]A4|[V:2]c4|\n[r:1/1][V:2]d4|\n[r:2/0][V:1]A4|]";

    #[test]
    fn bars_come_when_their_line_is_complete_and_are_those_of_the_whole() {
        let (mut growing, mut seen) = (Growing::default(), Vec::new());
        for end in 0..=TEXT.len() {
            growing.update(&TEXT[..end]);
            seen.push(growing.bars.len());
        }
        assert_eq!((seen.first(), seen.last()), (Some(&0), Some(&2)));
        assert!(seen.is_sorted() && seen.contains(&1));
        assert_eq!(growing.to_come, Some(1));
        growing.finish(TEXT);
        assert_eq!(growing.to_come, Some(0));
        assert_eq!(growing.abc(), format!("X:1\n{}", rests::unreduce_text(TEXT).unwrap()));
        assert_eq!(growing.bars[1], "[V:1]z4|[V:2]d4|");
    }

    #[test]
    fn text_without_sense_has_no_bars() {
        let mut growing = Growing::default();
        growing.finish("K:C\nV:1\n[V:1]c4|\n");
        assert!(growing.bars.is_empty());
    }
}
