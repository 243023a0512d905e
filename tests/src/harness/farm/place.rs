//! Where a program runs: here, or in a network namespace of a lab.

use std::process::Command;

use crate::harness::{HarnessError, binary};

/// A host of the test network.
#[derive(Clone, Debug, Default)]
pub struct Place {
    namespace: Option<String>,
    environment: Vec<(&'static str, &'static str)>,
}

impl Place {
    /// This machine's own network.
    #[must_use]
    pub fn here() -> Self {
        Self::default()
    }

    /// A network namespace made with `ip netns add`; needs root.
    #[must_use]
    pub fn namespace(name: &str) -> Self {
        Self { namespace: Some(name.to_owned()), environment: Vec::new() }
    }

    /// The same place, where programs get an environment variable.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.environment.push((name, value));
        self
    }

    /// A command that runs one of our programs there. `ip netns exec` replaces
    /// itself by the program, so the process id is the program's.
    ///
    /// # Errors
    /// When the program was not built.
    pub fn command(&self, program: &str) -> Result<Command, HarnessError> {
        let path = binary(program)?;
        let mut command = match &self.namespace {
            None => Command::new(path),
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(path);
                command
            }
        };
        command.envs(self.environment.iter().copied());
        Ok(command)
    }
}
