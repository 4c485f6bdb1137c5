//! Lines as a file holds them.

/// A line, and what is to be seen.
#[derive(Debug, Clone)]
pub struct Row {
    /// As it stands in the file.
    pub text: String,
    line: String,
    /// The app is looked at while it runs, and killed then.
    pub live: bool,
    /// What its standard input says.
    pub input: String,
    /// What we say in the place of docker's words.
    pub better: Option<String>,
    /// Our own exit code, where it is meant to differ.
    pub code: Option<String>,
}

/// The lines of a file, without comments: words after `docker`, as a shell reads them. `live` in
/// front: it runs until it is killed. `<<< TEXT` behind: its input. `=> TEXT` behind: a better
/// sentence than docker's, perhaps with `code N: ` before it.
#[must_use]
pub fn rows(text: &str) -> Vec<Row> {
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    lines.map(Row::of).collect()
}

fn cut<'a>(text: &'a str, separator: &str) -> (&'a str, Option<&'a str>) {
    match text.split_once(separator) {
        Some((line, rest)) => (line, Some(rest)),
        None => (text, None),
    }
}

impl Row {
    /// Reads one.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let (line, better) = cut(text, " => ");
        let (line, input) = cut(line, " <<< ");
        let bare = line.strip_prefix("live ");
        let (code, better) = match better.and_then(|better| better.strip_prefix("code ")) {
            Some(coded) => cut(coded, ": "),
            None => ("", better),
        };
        Self {
            text: text.to_owned(),
            line: bare.unwrap_or(line).to_owned(),
            live: bare.is_some(),
            input: input.map(|input| format!("{input}\n")).unwrap_or_default(),
            better: better.map(str::to_owned),
            code: Some(code.to_owned()).filter(|code| !code.is_empty()),
        }
    }

    /// Its words, with a name for the container unless it has one.
    #[must_use]
    pub fn words(&self, known: &[(&str, String)]) -> Vec<String> {
        let mut line = self.line.clone();
        if !line.contains("--name") {
            line = line.replacen("run ", "run --name {name} ", 1);
        }
        for (word, value) in known {
            line = line.replace(word, value);
        }
        split(&line)
    }
}

/// Words between blanks; quotes of both kinds hold blanks.
fn split(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut open) = (Vec::new(), String::new(), None, false);
    for c in line.chars().chain([' ']) {
        match quote {
            Some(end) if c == end => quote = None,
            Some(_) => word.push(c),
            None if c == '\'' || c == '"' => (quote, open) = (Some(c), true),
            None if c == ' ' => {
                if open || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                open = false;
            }
            None => word.push(c),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_with_its_marks() {
        let row = Row::of("live run -e 'A=b c' --x= {img} \"\" <<< hi there => sorry");
        assert!(row.live);
        assert_eq!((row.input.as_str(), row.better.as_deref()), ("hi there\n", Some("sorry")));
        let words = row.words(&[("{img}", "i".to_owned()), ("{name}", "n".to_owned())]);
        assert_eq!(words, ["run", "--name", "n", "-e", "A=b c", "--x=", "i", ""]);
    }
}
