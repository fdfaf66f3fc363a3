package nn

// Mode is embedded in modules that compute differently while they are trained, dropout and batch norm among
// them. As in PyTorch, a new module is in training mode; Train and Eval set the mode of a whole tree.
type Mode struct{ eval bool }

// Training tells whether the module is in training mode.
func (m *Mode) Training() bool { return !m.eval }

// SetTraining is called by Train and Eval.
func (m *Mode) SetTraining(on bool) { m.eval = !on }

// Train puts the modules of m in training mode, in which new modules are: dropout drops, batch norm uses the
// batch's statistics.
func Train(m any) { setTraining(m, true) }

// Eval puts the modules of m in evaluation mode.
func Eval(m any) { setTraining(m, false) }

func setTraining(m any, on bool) {
	for _, child := range NamedModules(m) {
		if c, ok := child.(interface{ SetTraining(bool) }); ok {
			c.SetTraining(on)
		}
	}
}
