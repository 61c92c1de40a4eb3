"""What is done with bills once they are written: checked, compared, summed and sent on."""
