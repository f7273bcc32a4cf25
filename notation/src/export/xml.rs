//! Writes XML, element after element.

/// An XML document that is being written.
pub(crate) struct XmlWriter {
    text: String,
    open: Vec<&'static str>,
}

impl XmlWriter {
    pub fn new(head: &str) -> XmlWriter {
        XmlWriter { text: head.to_owned(), open: Vec::new() }
    }

    fn indent(&mut self) {
        self.text.push('\n');
        self.text.extend(std::iter::repeat_n("  ", self.open.len()));
    }

    fn begin(&mut self, tag: &str, attributes: &[(&str, &str)]) {
        self.indent();
        self.text.push('<');
        self.text.push_str(tag);
        for (name, value) in attributes {
            self.text.extend([" ", name, "=\""]);
            self.escape(value);
            self.text.push('"');
        }
    }

    /// Opens an element.
    pub fn open(&mut self, tag: &'static str, attributes: &[(&str, &str)]) {
        self.begin(tag, attributes);
        self.text.push('>');
        self.open.push(tag);
    }

    /// Closes the element opened last.
    pub fn close(&mut self) {
        if let Some(tag) = self.open.pop() {
            self.indent();
            self.text.extend(["</", tag, ">"]);
        }
    }

    /// An element with nothing in it.
    pub fn empty(&mut self, tag: &str, attributes: &[(&str, &str)]) {
        self.begin(tag, attributes);
        self.text.push_str("/>");
    }

    /// An element with text.
    pub fn leaf(&mut self, tag: &str, attributes: &[(&str, &str)], text: &str) {
        self.begin(tag, attributes);
        self.text.push('>');
        self.escape(text);
        self.text.extend(["</", tag, ">"]);
    }

    /// An element with a number.
    pub fn number(&mut self, tag: &str, number: impl std::fmt::Display) {
        self.leaf(tag, &[], &number.to_string());
    }

    fn escape(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '&' => self.text.push_str("&amp;"),
                '<' => self.text.push_str("&lt;"),
                '>' => self.text.push_str("&gt;"),
                '"' => self.text.push_str("&quot;"),
                '\n' | '\t' => self.text.push(' '),
                // XML 1.0 cannot represent these.
                '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {}
                c => self.text.push(c),
            }
        }
    }

    pub fn finish(mut self) -> String {
        while !self.open.is_empty() {
            self.close();
        }
        self.text.push('\n');
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_and_elements_are_closed() {
        let mut xml = XmlWriter::new("<?xml?>");
        xml.open("a", &[("b", "\"<&\u{1}")]);
        xml.leaf("c", &[], "x > y");
        assert_eq!(xml.finish(), "<?xml?>\n<a b=\"&quot;&lt;&amp;\">\n  <c>x &gt; y</c>\n</a>\n");
    }
}
