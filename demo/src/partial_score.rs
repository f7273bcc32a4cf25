//! The whole bars of a piece that is being written, with the bars of rests put back in.
use notation::rests;

/// The part of a piece that can be engraved so far.
#[derive(Debug, Default, Clone)]
pub struct PartialScore {
    /// All lines before the music, the prompt included.
    pub header: String,
    /// Each a bar of all voices: `[V:1]…|[V:2]…|`.
    pub bars: Vec<String>,
    /// How many bars follow, as the last line of music announces it.
    pub bars_to_come: Option<usize>,
    /// How many bytes of the text have been read.
    read: usize,
}

impl PartialScore {
    /// Reads the lines that are complete. If the text does not parse yet, its bars appear once it does.
    pub fn update(&mut self, text: &str) {
        let complete = text.rfind('\n').map_or(0, |end| end + 1);
        if complete > self.read {
            self.read_text(&text[..complete]);
        }
    }

    /// Reads the rest of a text that is complete.
    pub fn finish(&mut self, text: &str) {
        if text.len() > self.read {
            self.read_text(text);
        }
    }

    fn read_text(&mut self, text: &str) {
        self.read = text.len();
        let Some(last) = text.lines().rev().find(|line| line.contains("[V:")) else { return };
        self.bars_to_come = bars_to_come(last);
        let Ok(whole) = rests::unreduce_text(text) else { return };
        let music = whole.lines().position(|line| line.contains("[V:")).unwrap_or(0);
        if self.bars.is_empty() {
            self.header = whole.split_inclusive('\n').take(music).collect();
        }
        self.bars.extend(whole.lines().skip(music + self.bars.len()).map(str::to_owned));
    }

    /// Interleaved ABC that other programs can read.
    pub fn abc(&self) -> String {
        format!("X:1\n{}{}\n", self.header, self.bars.join("\n"))
    }
}

/// The second number of `[r:i/n]`.
fn bars_to_come(line: &str) -> Option<usize> {
    line.strip_prefix("[r:")?.split_once(']')?.0.split_once('/')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "%Baroque\n%%score { 1 | 2 }\nL:1/8\nK:C\nV:1\nV:2\n[r:0/2][V:1]A4|[V:2]c4|\n[r:1/1][V:2]d4|\n[r:2/0][V:1]A4|]";

    #[test]
    fn bars_come_when_their_line_is_complete_and_are_those_of_the_whole() {
        let (mut score, mut seen) = (PartialScore::default(), Vec::new());
        for end in 0..=TEXT.len() {
            score.update(&TEXT[..end]);
            seen.push(score.bars.len());
        }
        assert_eq!((seen.first(), seen.last()), (Some(&0), Some(&2)));
        assert!(seen.is_sorted() && seen.contains(&1));
        assert_eq!(score.bars_to_come, Some(1));
        score.finish(TEXT);
        assert_eq!(score.bars_to_come, Some(0));
        assert_eq!(score.abc(), format!("X:1\n{}", rests::unreduce_text(TEXT).unwrap()));
        assert_eq!(score.bars[1], "[V:1]z4|[V:2]d4|");
    }

    #[test]
    fn text_that_does_not_parse_has_no_bars() {
        let mut score = PartialScore::default();
        score.finish("K:C\nV:1\n[V:1]c4|\n");
        assert!(score.bars.is_empty());
    }
}
