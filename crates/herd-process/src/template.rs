use std::{
    ffi::{OsStr, OsString},
    fmt,
    os::unix::ffi::{OsStrExt, OsStringExt},
};

/// What a template may name, as it is written between `{{.` and `}}`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Variable {
    Port,
    Socket,
    WorkerId,
    Workspace,
}

impl Variable {
    const ALL: [Self; 4] = [Self::Port, Self::Socket, Self::WorkerId, Self::Workspace];

    fn name(self) -> &'static str {
        match self {
            Self::Port => "Port",
            Self::Socket => "Socket",
            Self::WorkerId => "WorkerID",
            Self::Workspace => "Workspace",
        }
    }
}

/// Text in which `{{.Port}}`, `{{.Socket}}`, `{{.WorkerID}}` and `{{.Workspace}}` stand for values of one worker.
///
/// Anything else that is written in braces is passed on as it is, so that JSON and other programs' templates survive;
/// only `{{.` is ours.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Part {
    Text(Vec<u8>),
    Variable(Variable),
}

/// The values of one worker.
#[derive(Debug)]
pub(crate) struct Values {
    pub(crate) port: u16,
    pub(crate) socket: OsString,
    pub(crate) worker_id: String,
    pub(crate) workspace: OsString,
}

impl Template {
    pub(crate) fn parse(text: &OsStr) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut plain = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((&first, tail)) = rest.split_first() {
            let Some(inner) = rest.strip_prefix(b"{{").map(<[u8]>::trim_ascii_start).filter(|i| i.starts_with(b"."))
            else {
                plain.push(first);
                rest = tail;
                continue;
            };
            let (variable, after) = parse_variable(&inner[1..])?;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Variable(variable));
            rest = after;
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self(parts))
    }

    pub(crate) fn uses(&self, variable: Variable) -> bool {
        self.0.contains(&Part::Variable(variable))
    }

    pub(crate) fn begins_with(&self, variable: Variable) -> bool {
        self.0.first() == Some(&Part::Variable(variable))
    }

    pub(crate) fn expand(&self, values: &Values) -> OsString {
        let mut out = Vec::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Variable(Variable::Port) => out.extend_from_slice(values.port.to_string().as_bytes()),
                Part::Variable(Variable::Socket) => out.extend_from_slice(values.socket.as_bytes()),
                Part::Variable(Variable::WorkerId) => out.extend_from_slice(values.worker_id.as_bytes()),
                Part::Variable(Variable::Workspace) => out.extend_from_slice(values.workspace.as_bytes()),
            }
        }
        OsString::from_vec(out)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.0 {
            match part {
                Part::Text(text) => write!(f, "{}", String::from_utf8_lossy(text))?,
                Part::Variable(variable) => write!(f, "{{{{.{}}}}}", variable.name())?,
            }
        }
        Ok(())
    }
}

/// Reads `Name }}` and returns what follows it.
fn parse_variable(text: &[u8]) -> Result<(Variable, &[u8]), TemplateError> {
    let end = text.windows(2).position(|two| two == b"}}").ok_or(TemplateError::Unclosed)?;
    let name = text[..end].trim_ascii_end();
    let found = Variable::ALL.into_iter().find(|known| known.name().as_bytes() == name);
    let variable = found.ok_or_else(|| TemplateError::Unknown(String::from_utf8_lossy(name).into_owned()))?;
    Ok((variable, &text[end + 2..]))
}

/// A template that cannot be understood.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum TemplateError {
    Unknown(String),
    Unclosed,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(f, "`{{{{.{}}}}}` is not known", name.escape_debug())?,
            Self::Unclosed => f.write_str("`{{.` has no closing `}}`")?,
        }
        f.write_str("; allowed are ")?;
        for (index, variable) in Variable::ALL.into_iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}`{{{{.{}}}}}`", variable.name())?;
        }
        Ok(())
    }
}

impl std::error::Error for TemplateError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str) -> Result<String, TemplateError> {
        let values = Values {
            port: 8000,
            socket: "/run/s".into(),
            worker_id: "worker-3".to_owned(),
            workspace: "/run/w".into(),
        };
        let expanded = Template::parse(OsStr::new(text))?.expand(&values);
        Ok(expanded.into_string().expect("the text was UTF-8"))
    }

    #[test]
    fn every_variable_expands_wherever_it_stands() {
        assert_eq!(expand("--port={{.Port}}"), Ok("--port=8000".to_owned()));
        assert_eq!(expand("{{ .Port }}{{.Socket}}"), Ok("8000/run/s".to_owned()));
        assert_eq!(expand("a{{.WorkerID}}b{{.Workspace}}c"), Ok("aworker-3b/run/wc".to_owned()));
    }

    #[test]
    fn braces_that_are_not_ours_are_left_alone() {
        for text in ["", "{}", r#"{"a":{"b":1}}"#, "{{Port}}", "{{ x }}", "}}", "{{", "${{ secrets }}", "{.Port}"] {
            assert_eq!(expand(text), Ok(text.to_owned()));
        }
    }

    #[test]
    fn an_unknown_name_is_an_error_that_says_what_is_allowed() {
        for text in ["{{.port}}", "{{.Prot}}", "{{.}}", "{{.Port.Number}}", "x{{.Home}}y"] {
            let error = expand(text).expect_err(text).to_string();
            assert!(error.contains("is not known; allowed are `{{.Port}}`, `{{.Socket}}`"), "{error}");
        }
    }

    #[test]
    fn an_unclosed_template_is_an_error() {
        for text in ["{{.Port", "{{.Port}", "{{.Port} }"] {
            assert_eq!(expand(text), Err(TemplateError::Unclosed), "{text}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf_8_pass_through() {
        let text = OsStr::from_bytes(b"\xff{{.Port}}\xfe");
        let values = Values { port: 1, socket: "".into(), worker_id: String::new(), workspace: "".into() };
        let expanded = Template::parse(text).expect("the template is well formed").expand(&values);
        assert_eq!(expanded.as_bytes(), b"\xff1\xfe");
    }
}
