//! A YAML document as a tree that knows where each node stands.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::mistake::Position;

/// More nodes than any sane configuration has; it bounds what aliases can multiply.
const MAX_NODES: usize = 20_000;

/// Deeper than any key of the configuration stands.
const MAX_DEPTH: usize = 16;

/// One value of the document.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) at: Position,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// A scalar with its text; `plain` if it was written without quotes, so that `5` may be a number and `"5"` not.
    Scalar {
        text: String,
        plain: bool,
        /// What was written, if variables or files were filled in.
        filled: Option<String>,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// Its mistake has been told.
    Broken,
}

/// One `key: value` of a map, in the order of the file.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_at: Position,
    pub(crate) value: Node,
}

/// Why a text is no document that a configuration may be.
#[derive(Clone, Debug)]
pub(crate) struct SyntaxError {
    pub(crate) at: Position,
    pub(crate) problem: String,
}

impl Node {
    /// Whether it stands for "nothing": an empty value, `~` or `null`.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, plain: true, .. } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }
}

/// Reads the one document in `text`; `None` if it is empty.
///
/// It never panics and never recurses deeper than [`MAX_DEPTH`].
pub(crate) fn parse(text: &str) -> Result<Option<Node>, SyntaxError> {
    let mut builder = Builder::default();
    for step in Parser::new_from_str(text).keep_tags(true) {
        let (event, span) = step.map_err(|error| SyntaxError {
            at: Position::new(error.marker().line(), error.marker().col()),
            problem: format!("is not valid YAML: {}", error.info()),
        })?;
        builder.take(event, span)?;
    }
    Ok(builder.root)
}

/// A list or map that is still open.
#[derive(Debug)]
struct Open {
    at: Position,
    anchor: usize,
    items: Items,
}

#[derive(Debug)]
enum Items {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, key: Option<(String, Position)> },
}

#[derive(Debug, Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    documents: usize,
    root: Option<Node>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), SyntaxError> {
        let at = Position::new(span.start.line(), span.start.col());
        let refuse = |problem: &str| Err(SyntaxError { at, problem: problem.to_owned() });
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 { refuse("starts a second document; one is allowed") } else { Ok(()) }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let forced_text = match tag {
                    None => false,
                    Some(tag) if is_text_tag(&tag) => true,
                    Some(_) => return refuse("has a YAML tag, which configurations don't use"),
                };
                let plain = style == ScalarStyle::Plain && !forced_text;
                self.close_node(
                    anchor,
                    Node { at, kind: Kind::Scalar { text: text.into_owned(), plain, filled: None } },
                )
            }
            Event::SequenceStart(anchor, tag) => {
                if tag.is_some() {
                    return refuse("has a YAML tag, which configurations don't use");
                }
                self.open_node(Open { at, anchor, items: Items::List(Vec::new()) })
            }
            Event::MappingStart(anchor, tag) => {
                if tag.is_some() {
                    return refuse("has a YAML tag, which configurations don't use");
                }
                self.open_node(Open { at, anchor, items: Items::Map { entries: Vec::new(), key: None } })
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else { return Ok(()) };
                let kind = match open.items {
                    Items::List(items) => Kind::List(items),
                    Items::Map { entries, .. } => Kind::Map(entries),
                };
                self.close_node(open.anchor, Node { at: open.at, kind })
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                // The place of the alias is what the operator has to look at.
                Some(node) => {
                    let node = Node { at, kind: node.kind.clone() };
                    self.close_node(0, node)
                }
                None => refuse("is an alias of an anchor that is not complete yet"),
            },
        }
    }

    fn open_node(&mut self, open: Open) -> Result<(), SyntaxError> {
        if self.open.len() == MAX_DEPTH {
            return Err(SyntaxError { at: open.at, problem: format!("is nested deeper than {MAX_DEPTH} levels") });
        }
        if let Some(Open { items: Items::Map { key: None, .. }, .. }) = self.open.last() {
            return Err(SyntaxError { at: open.at, problem: "is a list or map where a key is expected".to_owned() });
        }
        self.open.push(open);
        Ok(())
    }

    /// Files a complete node under what is open around it.
    fn close_node(&mut self, anchor: usize, node: Node) -> Result<(), SyntaxError> {
        self.nodes += count(&node);
        if self.nodes > MAX_NODES {
            return Err(SyntaxError {
                at: node.at,
                problem: format!("makes the document larger than {MAX_NODES} values"),
            });
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.items) {
            None => self.root = Some(node),
            Some(Items::List(items)) => items.push(node),
            Some(Items::Map { entries, key }) => match key.take() {
                Some((name, key_at)) => entries.push(Entry { key: name, key_at, value: node }),
                None => match node.kind {
                    Kind::Scalar { text, .. } => *key = Some((text, node.at)),
                    Kind::List(_) | Kind::Map(_) | Kind::Broken => {
                        return Err(SyntaxError {
                            at: node.at,
                            problem: "is a list or map where a key is expected".to_owned(),
                        });
                    }
                },
            },
        }
        Ok(())
    }
}

/// How many nodes a complete node adds: itself, and for an alias everything below it. A list or map that was written
/// out has been counted piece by piece already, and counting it again only makes the bound a little tighter.
fn count(node: &Node) -> usize {
    match &node.kind {
        Kind::Scalar { .. } | Kind::Broken => 1,
        Kind::List(items) => 1 + items.iter().map(count).sum::<usize>(),
        Kind::Map(entries) => 1 + entries.iter().map(|entry| count(&entry.value)).sum::<usize>(),
    }
}

fn is_text_tag(tag: &Tag) -> bool {
    tag.is_yaml_core_schema() && tag.suffix == "str"
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(text: &str) -> Vec<Entry> {
        match parse(text).unwrap().unwrap().kind {
            Kind::Map(entries) => entries,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn keys_and_values_know_their_line_and_column() {
        let entries = map("a: 1\nlonger:\n  b: [x, 'y']\n");
        assert_eq!((entries[0].key_at, entries[0].value.at), (Position::new(1, 0), Position::new(1, 3)));
        let Kind::Map(inner) = &entries[1].value.kind else { panic!() };
        assert_eq!((inner[0].key_at.line, inner[0].key_at.column), (3, 3));
        let Kind::List(items) = &inner[0].value.kind else { panic!() };
        assert!(matches!(&items[0].kind, Kind::Scalar { plain: true, .. }));
        assert!(matches!(&items[1].kind, Kind::Scalar { plain: false, text, .. } if text == "y"));
        assert_eq!((items[1].at.line, items[1].at.column), (3, 10));
    }

    #[test]
    fn an_alias_repeats_its_anchor_at_its_own_place() {
        let entries = map("a: &x [1]\nb: *x\n");
        assert!(matches!(&entries[1].value.kind, Kind::List(items) if items.len() == 1));
        assert_eq!(entries[1].value.at.line, 2);
    }

    #[test]
    fn aliases_cannot_multiply_a_document_without_bound() {
        let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for (name, of) in ["b", "c", "d", "e", "f", "g"].iter().zip(["a", "b", "c", "d", "e", "f"]) {
            bomb += &format!("{name}: &{name} [{}]\n", vec![format!("*{of}"); 10].join(", "));
        }
        assert!(parse(&bomb).unwrap_err().problem.contains("larger than"));
    }

    #[test]
    fn deep_nesting_is_refused_and_does_not_overflow_the_stack() {
        assert!(parse(&"[".repeat(100_000)).is_err());
        assert!(parse(&"- ".repeat(100_000)).is_err());
        assert!(parse(&"? ".repeat(10_000)).is_err());
    }

    #[test]
    fn a_second_document_is_refused() {
        assert!(parse("a: 1\n---\nb: 2\n").unwrap_err().problem.contains("second document"));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn no_text_of_yaml_signs_makes_the_parser_panic(text in "[-:?\\[\\]{}&*!|>'\"%@`,#a1 \t\n~]{0,80}") {
            let _ = parse(&text);
        }
    }
}
