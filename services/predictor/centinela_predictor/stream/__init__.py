"""The stream: transactions in; verdicts, terminal activity and panes out, exactly once."""
