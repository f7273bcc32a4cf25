//! Reads `%%score`: which voices share a staff, which staves belong to an instrument, and which parts are in a bracket.

use std::collections::HashMap;

use super::diagnostics::{Diagnostics, LineColumn};
use super::score::{AbcPart, AbcVoice, Bracket, LayoutEntry};

/// The deepest nesting of brackets; deeper ones are left out.
const DEEPEST: usize = 32;

#[derive(Debug)]
enum LayoutNode {
    Voice(usize),
    /// The opening bracket, whether it has a star, and its content.
    Group(char, bool, Vec<LayoutNode>),
}

/// The parts and brackets of a `%%score` line. Voices that it leaves out follow, each as a part of its own.
pub(crate) fn layout(
    score: Option<(&str, LineColumn)>,
    voices: &[AbcVoice],
    diagnostics: &mut Diagnostics,
) -> (Vec<LayoutEntry>, Vec<AbcPart>) {
    let mut result = LayoutBuilder { voices, listed: Vec::new(), parts: Vec::new() };
    let mut placed = vec![false; voices.len()];
    let at = score.map_or(LineColumn { line: 1, column: 1 }, |(_, at)| at);
    if let Some((text, at)) = score {
        for node in parse(text, at, voices, &mut placed, diagnostics) {
            result.add(&node);
        }
    }
    for place in 0..voices.len() {
        if !placed[place] {
            if score.is_some() {
                let problem = format!("%%score leaves out voice V:{}, which gets a staff of its own", voices[place].id);
                diagnostics.add(at, "", 0, problem);
            }
            result.part(vec![vec![place]]);
        }
    }
    (result.listed, result.parts)
}

fn parse(
    text: &str,
    at: LineColumn,
    voices: &[AbcVoice],
    placed: &mut [bool],
    diagnostics: &mut Diagnostics,
) -> Vec<LayoutNode> {
    let places: HashMap<&str, usize> = voices.iter().enumerate().map(|(i, voice)| (voice.id.as_str(), i)).collect();
    let spaced: String =
        text.chars().flat_map(|c| if "{}[]()|".contains(c) { vec![' ', c, ' '] } else { vec![c] }).collect();
    let mut open: Vec<(char, bool, Vec<LayoutNode>)> = Vec::new();
    let mut nodes: Vec<LayoutNode> = Vec::new();
    let mut unbalanced = false;
    for word in spaced.split_whitespace() {
        let first = word.chars().next().unwrap_or('|');
        match first {
            '{' | '[' | '(' => {
                if open.len() < DEEPEST {
                    open.push((first, false, std::mem::take(&mut nodes)));
                }
            }
            '}' | ']' | ')' => {
                let bracket = match first {
                    '}' => '{',
                    ']' => '[',
                    _ => '(',
                };
                if open.iter().any(|(opened, ..)| *opened == bracket) {
                    // Brackets that are still open inside this one end with it.
                    while let Some((opened, star, outer)) = open.pop() {
                        let inner = std::mem::replace(&mut nodes, outer);
                        nodes.push(LayoutNode::Group(opened, star, inner));
                        if opened == bracket {
                            break;
                        }
                        unbalanced = true;
                    }
                } else {
                    unbalanced = true;
                }
            }
            '|' => {}
            '*' if word.len() == 1 => {
                if let Some((_, star, _)) = open.last_mut() {
                    *star = nodes.is_empty();
                }
            }
            _ => match places.get(word.trim_start_matches('*')) {
                Some(place) if !placed[*place] => {
                    placed[*place] = true;
                    nodes.push(LayoutNode::Voice(*place));
                }
                Some(_) => diagnostics.add(at, "", 0, format!("%%score has voice {word} twice")),
                None => diagnostics.add(at, "", 0, format!("%%score has voice {word}, which is not there")),
            },
        }
    }
    unbalanced |= !open.is_empty();
    while let Some((opened, star, outer)) = open.pop() {
        let inner = std::mem::replace(&mut nodes, outer);
        nodes.push(LayoutNode::Group(opened, star, inner));
    }
    if unbalanced {
        diagnostics.add(at, "", 0, "the brackets of %%score do not match");
    }
    nodes
}

struct LayoutBuilder<'a> {
    voices: &'a [AbcVoice],
    listed: Vec<LayoutEntry>,
    parts: Vec<AbcPart>,
}

impl LayoutBuilder<'_> {
    fn add(&mut self, node: &LayoutNode) {
        match node {
            LayoutNode::Voice(place) => self.part(vec![vec![*place]]),
            LayoutNode::Group('(', _, nodes) => {
                let staff = flat(nodes);
                if !staff.is_empty() {
                    self.part(vec![staff]);
                }
            }
            LayoutNode::Group(bracket, star, nodes) => {
                if *bracket == '{'
                    && let Some(staves) = staves(nodes)
                    && (*star || self.one_instrument(&staves))
                {
                    self.part(staves);
                    return;
                }
                self.listed.push(LayoutEntry::Open(if *bracket == '{' { Bracket::Brace } else { Bracket::Square }));
                let before = self.parts.len();
                for node in nodes {
                    self.add(node);
                }
                if self.parts.len() == before {
                    self.listed.pop();
                } else {
                    self.listed.push(LayoutEntry::Close);
                }
            }
        }
    }

    /// Whether only one staff has a name. The original takes the staves for one instrument then.
    fn one_instrument(&self, staves: &[Vec<usize>]) -> bool {
        let named = |staff: &&Vec<usize>| staff.iter().any(|place| !self.voices[*place].name.is_empty());
        staves.iter().filter(named).count() == 1
    }

    fn part(&mut self, staves: Vec<Vec<usize>>) {
        let named = staves.iter().flatten().map(|place| &self.voices[*place]).find(|voice| !voice.name.is_empty());
        let (name, short_name) = named.map(|voice| (voice.name.clone(), voice.short_name.clone())).unwrap_or_default();
        self.listed.push(LayoutEntry::Part(self.parts.len()));
        self.parts.push(AbcPart { name, short_name, staves });
    }
}

/// The staves of an instrument, if the nodes are all staves.
fn staves(nodes: &[LayoutNode]) -> Option<Vec<Vec<usize>>> {
    let staves: Option<Vec<Vec<usize>>> = nodes
        .iter()
        .map(|node| match node {
            LayoutNode::Voice(place) => Some(vec![*place]),
            LayoutNode::Group('(', _, nodes) => Some(flat(nodes)),
            LayoutNode::Group(..) => None,
        })
        .collect();
    staves
        .map(|staves| staves.into_iter().filter(|staff| !staff.is_empty()).collect::<Vec<_>>())
        .filter(|s| !s.is_empty())
}

fn flat(nodes: &[LayoutNode]) -> Vec<usize> {
    let mut places = Vec::new();
    for node in nodes {
        match node {
            LayoutNode::Voice(place) => places.push(*place),
            LayoutNode::Group(_, _, nodes) => places.extend(flat(nodes)),
        }
    }
    places
}
