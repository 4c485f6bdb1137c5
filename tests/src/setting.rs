//! A setting of the product, given in one of its ways.

use anyhow::Result;
use tempfile::TempDir;

use crate::exec::Exec;
use crate::mirrord::Mirrord;

/// Words, a file or variables that ask for something.
#[derive(Default)]
pub struct Given {
    options: Vec<String>,
    docker: Vec<String>,
    variables: Vec<(String, String)>,
    // There as long as it may be read.
    _folder: Option<TempDir>,
}

impl Given {
    /// On the command line.
    #[must_use]
    pub fn by_options(words: &[String]) -> Self {
        Self { options: words.to_vec(), ..Self::default() }
    }

    /// Among docker's own words.
    #[must_use]
    pub fn by_docker(words: &[String]) -> Self {
        Self { docker: words.to_vec(), ..Self::default() }
    }

    /// In the environment.
    #[must_use]
    pub fn by_variable(name: &str, value: &str) -> Self {
        Self { variables: vec![(name.to_owned(), value.to_owned())], ..Self::default() }
    }

    /// In a configuration file of that name and content, which `-f` leads to.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn by_file(name: &str, content: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join(name);
        std::fs::write(&file, content)?;
        let options = vec!["-f".to_owned(), file.to_string_lossy().into_owned()];
        Ok(Self { options, _folder: Some(folder), ..Self::default() })
    }

    /// The same for a container.
    #[must_use]
    pub fn to<'lab>(&self, mirrord: Mirrord<'lab>) -> Mirrord<'lab> {
        let mirrord = mirrord.with(self.options.clone()).docker(self.docker.clone());
        self.variables.iter().fold(mirrord, |mirrord, (name, value)| mirrord.env(name, value))
    }

    /// The same for a process of this machine.
    #[must_use]
    pub fn to_exec<'lab>(&self, exec: Exec<'lab>) -> Exec<'lab> {
        let exec = exec.with(self.options.clone());
        self.variables.iter().fold(exec, |exec, (name, value)| exec.env(name, value))
    }
}
