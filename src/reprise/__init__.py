"""reprise: published papers, performed again."""

__version__ = "0.1.0"
