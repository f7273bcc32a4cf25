//! One piece while it is written: the rules of the original's `inference_patch` (`inference/inference.py`), without the
//! network.
use crate::patches::{BOS, EOS, PADDING, Patchiliser};
use crate::{Error, Result};

/// What the first patch of the body is made to begin with.
const FIRST_BAR: &[u8] = b"[r:0/";

/// What a piece begins with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Start {
    /// Metadata lines, each with its line end (see [`crate::prompts`]).
    pub prompt: Vec<String>,
    /// Interleaved ABC to go on from, its lines of music tagged as the network writes them (see [`tag_lines`]).
    pub music: Option<String>,
}

/// Why a piece is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The network wrote the patch that ends a piece.
    Ended,
    /// The context is full and holds no two lines of music to go on from. The original keeps such pieces.
    Full,
    /// It has as many patches as were asked for at most.
    Stopped,
}

/// Why an attempt at a piece is given up.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Failure {
    /// More characters than the limit.
    #[error("it has more than {0} characters")]
    Characters(usize),
    /// More time than the limit.
    #[error("it took more than {0} seconds")]
    Seconds(f64),
    /// The caller's check refused the text.
    #[error("{0}")]
    Refused(String),
}

/// What follows from a patch.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Next {
    Continue,
    Complete(Outcome),
    Fail(Failure),
}

/// Limits of one piece.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) patch_length: usize,
    pub(super) characters: usize,
    pub(super) seconds: f64,
    pub(super) patches: Option<usize>,
}

/// What every piece begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Beginning {
    pub(super) text: String,
    /// Whole patches and the characters of an open one.
    pub(super) context: Vec<u8>,
    /// The text has music already.
    pub(super) in_body: bool,
}

impl Beginning {
    /// Errors where the text is not ASCII or the metadata alone does not leave room for music.
    pub(super) fn new(patchiliser: &Patchiliser, start: &Start, limits: &Limits) -> Result<Beginning> {
        let text = start.prompt.concat() + start.music.as_deref().unwrap_or_default();
        let mut context = match start.music {
            None => patchiliser.encode_metadata(&start.prompt)?.characters().to_vec(),
            Some(_) => flat(patchiliser.encode_generate(&text, limits.patch_length)?),
        };
        let full = limits.patch_length * patchiliser.patch_size();
        // Music longer than two contexts slides more than once.
        let mut cut = None;
        while context.len() >= full {
            cut = cut.map(|lines| lines / 2);
            context = match slide(patchiliser, &text, limits.patch_length, &mut cut)? {
                Some(context) if cut > Some(0) => context,
                _ => return Err(Error::Invalid(format!("the prompt fills all {} patches", limits.patch_length))),
            };
        }
        let in_body = text.split('\n').any(is_body);
        Ok(Beginning { text, context, in_body })
    }
}

/// One attempt at a piece.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) index: usize,
    /// From 0.
    pub(super) attempt: u32,
    pub(super) text: String,
    /// Its share of the time so far: what it would roughly have taken alone.
    pub(super) seconds: f64,
    /// Patches kept.
    pub(super) patches: usize,
    /// Patches predicted: names the random numbers of the next.
    pub(super) draws: u64,
    /// Patches of the context that the network's cache holds.
    pub(super) cached: usize,
    context: Vec<u8>,
    in_body: bool,
    /// The next patch is the first of the body, predicted again with its beginning given.
    forced: bool,
    /// Lines of music that a slide keeps; fixed by the first.
    cut: Option<usize>,
}

impl Track {
    pub(super) fn new(index: usize, attempt: u32, beginning: &Beginning) -> Track {
        Track {
            index,
            attempt,
            text: beginning.text.clone(),
            seconds: 0.0,
            patches: 0,
            draws: 0,
            cached: 0,
            context: beginning.context.clone(),
            in_body: beginning.in_body,
            forced: false,
            cut: None,
        }
    }

    /// Whole patches that the network has yet to read, and the given characters of the next patch.
    pub(super) fn input(&self, size: usize) -> (Vec<u8>, Vec<u8>) {
        let given: &[u8] = if self.forced { FIRST_BAR } else { &[] };
        let mut unread: Vec<u8> = self.context.iter().chain(given).copied().skip(self.cached * size).collect();
        let open = unread.split_off(unread.len() - unread.len() % size);
        (unread, open)
    }

    /// Takes the characters predicted after those given, up to and with the first end mark if there is one.
    pub(super) fn accept(&mut self, predicted: &[u8], patchiliser: &Patchiliser, limits: &Limits) -> Result<Next> {
        self.draws += 1;
        let mut patch = if std::mem::take(&mut self.forced) { FIRST_BAR.to_vec() } else { Vec::new() };
        patch.extend_from_slice(predicted);
        let text = patchiliser.decode(&patch);
        if !self.in_body && text.starts_with("[r:") {
            self.in_body = true;
            self.forced = true;
            return Ok(Next::Continue);
        }
        if patch.starts_with(&[BOS, EOS]) {
            return Ok(Next::Complete(Outcome::Ended));
        }
        self.text.push_str(&text);
        self.context.extend_from_slice(&patch);
        self.context.resize(self.context.len().next_multiple_of(patchiliser.patch_size()), PADDING);
        self.patches += 1;
        if self.text.len() > limits.characters {
            return Ok(Next::Fail(Failure::Characters(limits.characters)));
        }
        if self.seconds > limits.seconds {
            return Ok(Next::Fail(Failure::Seconds(limits.seconds)));
        }
        if limits.patches.is_some_and(|most| self.patches >= most) {
            return Ok(Next::Complete(Outcome::Stopped));
        }
        if self.context.len() >= limits.patch_length * patchiliser.patch_size() {
            match slide(patchiliser, &self.text, limits.patch_length, &mut self.cut)? {
                None => return Ok(Next::Complete(Outcome::Full)),
                Some(context) => self.context = context,
            }
            self.cached = 0;
        }
        Ok(Next::Continue)
    }
}

/// Interleaved ABC with `[r:i/n]` before every line of music that has none, as in the training data: i lines before
/// it, n behind it. `more` is how many lines are to be expected behind the last one.
pub fn tag_lines(abc: &str, more: usize) -> String {
    let body = abc.split('\n').filter(|line| is_body(line)).count();
    let mut i = 0;
    let tagged = abc.split('\n').map(|line| {
        let tag = if line.starts_with("[V:") { format!("[r:{i}/{}]", body - i - 1 + more) } else { String::new() };
        i += usize::from(is_body(line));
        tag + line
    });
    tagged.collect::<Vec<_>>().join("\n")
}

fn is_body(line: &str) -> bool {
    line.starts_with("[r:") || line.starts_with("[V:")
}

fn flat(prompt: crate::patches::Prompt) -> Vec<u8> {
    [prompt.patches.characters(), &prompt.partial].concat()
}

/// The stream slide: the metadata and the last `cut` lines of music as a new context. The first slide sets `cut` to
/// half of the lines; a text that ends a line counts one more, a blank one. Nothing if there is at most one line.
fn slide(
    patchiliser: &Patchiliser,
    text: &str,
    patch_length: usize,
    cut: &mut Option<usize>,
) -> Result<Option<Vec<u8>>> {
    let lines: Vec<&str> = text.split('\n').collect();
    let Some(body) = lines.iter().position(|line| is_body(line)).filter(|&body| body + 1 < lines.len()) else {
        return Ok(None);
    };
    let keep = *cut.get_or_insert((lines.len() - body) / 2);
    let from = lines.len().saturating_sub(keep).max(body);
    let mut rest: String = lines[..body].iter().chain(&lines[from..]).flat_map(|line| [*line, "\n"]).collect();
    if !text.ends_with('\n') {
        rest.pop();
    }
    Ok(Some(flat(patchiliser.reencode(&rest, patch_length)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { patch_length: 8, characters: 1000, seconds: 60.0, patches: None };

    fn patchiliser() -> Patchiliser {
        Patchiliser::new(16).unwrap()
    }

    fn track(prompt: &[&str]) -> Track {
        let start = Start { prompt: prompt.iter().map(|&line| line.to_owned()).collect(), music: None };
        Track::new(0, 0, &Beginning::new(&patchiliser(), &start, &LIMITS).unwrap())
    }

    fn accept(track: &mut Track, predicted: &[u8]) -> Next {
        track.accept(predicted, &patchiliser(), &LIMITS).unwrap()
    }

    #[test]
    fn music_of_many_contexts_is_gone_on_from_by_its_end() {
        let music: String = (0..40).map(|i| format!("[r:{i}/{}][V:1]ABcd|\n", 39 - i)).collect();
        let start = Start { prompt: vec!["K:C\n".to_owned()], music: Some(music) };
        let context = Beginning::new(&patchiliser(), &start, &LIMITS).unwrap().context;
        assert!(context.len() < LIMITS.patch_length * 16, "{}", context.len());
        let text = String::from_utf8_lossy(&context);
        assert!(text.contains("K:C") && text.contains("[r:39/0]") && !text.contains("[r:30/9]"), "{text}");
    }

    #[test]
    fn the_first_bar_is_predicted_again_behind_its_tag() {
        let mut track = track(&["K:C\n"]);
        assert_eq!(accept(&mut track, b"[r:3/7][V:1]ABcd"), Next::Continue);
        assert_eq!((track.text.as_str(), track.input(16).1.as_slice()), ("K:C\n", FIRST_BAR));
        assert_eq!(accept(&mut track, b"7][V:1]ABcd"), Next::Continue);
        assert_eq!(track.text, "K:C\n[r:0/7][V:1]ABcd");
        assert_eq!((track.draws, track.patches), (2, 1));
        accept(&mut track, b"[r:1/6][V:1]ABcd");
        assert_eq!(track.patches, 2, "only the first is");
    }

    #[test]
    fn what_follows_an_end_mark_is_filled() {
        let mut track = track(&[]);
        accept(&mut track, b"|\x02");
        assert_eq!(track.input(16).0[16..], *b"|\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(accept(&mut track, &[BOS, EOS]), Next::Complete(Outcome::Ended));
    }

    #[test]
    fn a_slide_keeps_the_lines_that_the_first_one_counted() {
        let p = patchiliser();
        let mut cut = None;
        let text = "K:C\n[r:0/9][V:1]A|\n[r:1/8][V:1]B|\n[r:2/7][V:1]c|\n";
        let context = slide(&p, text, 64, &mut cut).unwrap().unwrap();
        // Three lines and the blank one behind the last line end.
        assert_eq!(cut, Some(2));
        assert_eq!(context, flat(p.encode_generate("K:C\n[r:2/7][V:1]c|\n", 64).unwrap()));
        let text = format!("{text}[r:3/6][V:1]d|\n[r:4/5][V:");
        let context = slide(&p, &text, 64, &mut cut).unwrap().unwrap();
        assert_eq!(cut, Some(2));
        assert_eq!(context, flat(p.encode_generate("K:C\n[r:3/6][V:1]d|\n[r:4/5][V:", 64).unwrap()));
        assert_eq!(context.len() % 16, 10);
    }

    #[test]
    fn a_full_context_without_two_lines_of_music_ends_the_piece() {
        let mut track = track(&[]);
        for _ in 0..6 {
            assert_eq!(accept(&mut track, b"K:C K:C K:C K:C "), Next::Continue);
        }
        assert_eq!(accept(&mut track, b"K:C K:C K:C K:C "), Next::Complete(Outcome::Full));
    }

    #[test]
    fn limits_fail_an_attempt() {
        let mut track = track(&[]);
        let limits = Limits { characters: 3, ..LIMITS };
        assert_eq!(track.accept(b"ABc\x02", &patchiliser(), &limits).unwrap(), Next::Continue);
        let failed = track.accept(b"d\x02", &patchiliser(), &limits).unwrap();
        assert_eq!(failed, Next::Fail(Failure::Characters(3)));
        track.seconds = 60.5;
        let limits = LIMITS;
        assert!(matches!(track.accept(b"d\x02", &patchiliser(), &limits).unwrap(), Next::Fail(Failure::Seconds(_))));
    }

    #[test]
    fn music_without_tags_gets_them() {
        let abc = "K:C\n[V:1]A|\n[V:1]B|";
        assert_eq!(tag_lines(abc, 6), "K:C\n[r:0/7][V:1]A|\n[r:1/6][V:1]B|");
        assert_eq!(tag_lines("[r:0/9][V:1]A|\n[V:1]B|\n", 0), "[r:0/9][V:1]A|\n[r:1/0][V:1]B|\n");
    }

    #[test]
    fn music_to_go_on_from_is_given_and_shortened_where_too_long() {
        let p = patchiliser();
        let begin = |music: &str| {
            Beginning::new(&p, &Start { prompt: vec!["%A\n".to_owned()], music: Some(music.to_owned()) }, &LIMITS)
        };
        let short = begin("K:C\n[r:0/9][V:1]A|[V:").unwrap();
        assert!(short.in_body && short.context.ends_with(b"[r:0/9][V:1]A\x02\0\0|[V:"), "{short:?}");
        let line = "[r:0/9][V:1]ABcd ABcd ABcd|\n";
        let long = begin(&format!("K:C\n{}", line.repeat(6))).unwrap();
        assert!(long.context.len() < 8 * 16 && long.text.ends_with(&line.repeat(6)));
        assert!(begin(&"K:C\n".repeat(20)).is_err());
        assert!(begin("K:C\n[V:1]é|").is_err());
    }

    #[test]
    fn control_characters_in_a_text_survive_a_slide() {
        let text = "K:C\n[r:0/1][V:1]A\0|\n[r:1/0][V:1]\u{1}";
        let context = slide(&patchiliser(), text, 64, &mut None).unwrap().unwrap();
        assert!(context.ends_with(b"[r:1/0][V:1]\x01"));
    }
}
